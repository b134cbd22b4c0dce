"""Port traffic of a running machine: counted, offered on a private socket, and shown by `portvisor top`."""
