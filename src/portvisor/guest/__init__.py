"""What goes into guest memory: loaders, tables, images."""
