"""The run state behind QMP: what commands and guests make of the machine, and the events that tell of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from portvisor.devices.pvpanic import PANICKED
from portvisor.machines.outcome import End
from portvisor.qtest.boards import Board
from portvisor.qtest.devices import Builder
from portvisor.qtest.options import Options
from portvisor.qtest.protocol import Qtest
from portvisor.qtest.qmp import Event, event
from portvisor.qtest.target import MachineTarget

WATCHDOG_STOPS = ("shutdown", "poweroff")


class Session:
    """The machine and its run state.

    Attributes:
        exit_status: set once the server has to end.
        on_event: told every QMP event.
    """

    def __init__(self, options: Options, log: TextIO | None = None) -> None:
        """Build the machine.

        Raises:
            OptionError: the command line asks for what cannot be had; also the errors of `Builder.build`.
        """
        self._options = options
        self._log_file = log
        self.exit_status: int | None = None
        self.on_event: Callable[[Event], None] | None = None
        self.status = "prelaunch" if options.stopped else "running"
        self.vm_name, self.uuid = options.name, options.uuid
        self._builder = Builder(options, self._panicked)
        self.board: Board = self._builder.build()
        self._requested_reset: tuple[str, bool] | None = None
        machine = self.board.machine
        machine.on_message = lambda text: print(f"portvisor: {text}", file=sys.stderr)
        self.target = MachineTarget(machine, self.board.vm, self.board.clock, self.board.pic)
        self.qtest = Qtest(self.target, self._log if log else None)
        self.target.on_irq = self.qtest.irq_changed

    def _log(self, direction: str, line: str) -> None:
        assert self._log_file
        self._log_file.write(f"[{direction}] {line}\n")
        self._log_file.flush()

    def _emit(self, name: str, **data: object) -> None:
        if self.on_event:
            self.on_event(event(name, data))

    @property
    def has_pic(self) -> bool:
        return self.board.pic is not None

    # --- after each batch of commands -------------------------------------------------------------------

    def settle(self) -> None:
        """Do what commands and devices have asked for: stop, watchdog, reset."""
        machine = self.board.machine
        if machine.stop_request is not None:
            outcome, machine.stop_request = machine.stop_request, None
            if outcome.end is End.GUEST_EXIT:
                self.exit_status = outcome.status & 0xFF
                return
            self.shut_down("guest-shutdown", guest=True)
        if machine.watchdog_pending:
            machine.watchdog_pending = False
            self._watchdog()
        if machine.reset_request is not None:
            machine.reset_request = None
            self._requested_reset = ("guest-reset", True)
        if self._requested_reset is not None:
            reason, guest = self._requested_reset
            self._requested_reset = None
            self._reset_now(reason, guest)

    def _reset_now(self, reason: str, guest: bool) -> None:
        if self._options.no_reboot:
            self.shut_down(reason, guest)
            return
        self.board.machine.reset()
        self._emit("RESET", guest=guest, reason=reason)

    def shut_down(self, reason: str, guest: bool) -> None:
        """SHUTDOWN, and the end of the server unless -no-shutdown."""
        self._emit("SHUTDOWN", guest=guest, reason=reason)
        if self._options.no_shutdown and guest:
            self._pause("shutdown")
        else:
            self.exit_status = 0

    def _watchdog(self) -> None:
        action = self._options.watchdog_action
        self._emit("WATCHDOG", action=action)
        if action == "reset":
            self._requested_reset = ("guest-reset", True)
        elif action in WATCHDOG_STOPS:
            self.shut_down("guest-shutdown", guest=True)
        elif action == "pause":
            self._pause("watchdog")

    def _panicked(self, happened: int) -> None:
        if happened == PANICKED:
            self._emit("GUEST_PANICKED", action="pause")
            self._pause("guest-panicked")
        else:
            self._emit("GUEST_CRASHLOADED", action="run")

    def _pause(self, status: str) -> None:
        was_running = self.status == "running"
        self.status = status
        if was_running:
            self._emit("STOP")

    # --- what QMP asks for ------------------------------------------------------------------------------

    def reset(self, reason: str, guest: bool) -> None:
        """system_reset."""
        self._requested_reset = (reason, guest)

    def powerdown(self) -> None:
        """system_powerdown: the power button."""
        pm = getattr(self.board.machine, "pm", None)
        self._emit("POWERDOWN")
        if pm is not None:
            pm.press_power_button()

    def change_medium(self, name: str, path: str | None, *, read_only: bool) -> None:
        """blockdev-change-medium and eject, of floppy drives."""
        self._builder.change_floppy(name, path, read_only=read_only)

    def stop(self) -> None:
        """Pause. The virtual clock stays under the client's control."""
        if self.status == "running":
            self._pause("paused")

    def resume(self) -> None:
        """Go on."""
        if self.status != "running":
            self.status = "running"
            self._emit("RESUME")

    def quit(self, reason: str) -> None:
        """End the server."""
        self.shut_down(reason, guest=False)

    def close(self) -> None:
        """Give everything back."""
        self.board.machine.close()
        self._builder.close()
