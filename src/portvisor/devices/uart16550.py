"""PC16550D universal asynchronous receiver/transmitter, wired as a PC's COM port.

Source: National Semiconductor PC16550D data sheet (registers, interrupt control functions, FIFO interrupt mode).

    offset  read                    write                     DLAB = 1
    0       RBR receiver buffer     THR transmitter holding   DLL divisor latch, low
    1       IER interrupt enable    IER                       DLM divisor latch, high
    2       IIR interrupt ident.    FCR FIFO control
    3       LCR line control        LCR
    4       MCR modem control       MCR
    5       LSR line status
    6       MSR modem status
    7       SCR scratch             SCR

By default a character leaves at once: THR is always empty and its interrupt returns as soon as THR was
written. With `timed=True` characters take their time on the clock in both directions.

Bytes that come from the host while the receiver is full wait in a bounded queue, as if the far end kept
flow control, so that pasted text arrives whole; `flow_control=False` gives the bare chip and its overruns.

The PC gates the interrupt with OUT2; in loop mode the chip holds the OUT2 pin inactive, so the gate is shut.

Not modelled: DMA handshake pins (FCR bit 3 does nothing), the word length (all eight bits of a character
pass, so that a guest that never sets LCR is understood), stick parity and break on the line to the host,
the delay of the first THRE interrupt, writes to LSR and MSR (factory test).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import NS_PER_S, CharBackend, Clock, Device, IrqLine, PortRange, Timer

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

IER_ERBFI = 0x01  # received data available
IER_ETBEI = 0x02  # transmitter holding register empty
IER_ELSI = 0x04  # receiver line status
IER_EDSSI = 0x08  # modem status

IIR_NONE = 0x01
IIR_MODEM_STATUS = 0x00
IIR_THR_EMPTY = 0x02
IIR_DATA_AVAILABLE = 0x04
IIR_LINE_STATUS = 0x06
IIR_TIMEOUT = 0x0C
IIR_FIFOS_ENABLED = 0xC0

FCR_ENABLE = 0x01
FCR_RESET_RECEIVER = 0x02
FCR_RESET_TRANSMITTER = 0x04
FCR_KEPT = 0xC9
TRIGGER_LEVELS = (1, 4, 8, 14)

LCR_WORD_LENGTH = 0x03
LCR_STOP_BITS = 0x04
LCR_PARITY = 0x08
LCR_DLAB = 0x80

MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_BITS = 0x1F

LSR_DR = 0x01
LSR_OE = 0x02
LSR_PE = 0x04
LSR_FE = 0x08
LSR_BI = 0x10
LSR_THRE = 0x20
LSR_TEMT = 0x40
LSR_FIFO_ERROR = 0x80
LSR_CONDITIONS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
LSR_CLEARED_BY_READ = LSR_CONDITIONS | LSR_FIFO_ERROR

MSR_DCTS = 0x01
MSR_DDSR = 0x02
MSR_TERI = 0x04
MSR_DDCD = 0x08
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_DELTAS = 0x0F
MSR_INPUTS = 0xF0

FIFO_DEPTH = 16
CRYSTAL_HZ = 1_843_200
SAMPLES_PER_BIT = 16
TIMEOUT_CHARACTERS = 4
POWER_ON_DIVISOR = 12  # 9600 baud; the data sheet leaves the latch undefined at power-on

BREAK_CHARACTER = (LSR_BI | LSR_FE) << 8
"""A break as the receiver stores it: a zero character with its line status above."""

_BYTES = tuple(bytes((value,)) for value in range(256))


class Uart16550(Device):
    """One serial port.

    Args:
        irq: the interrupt line (IRQ 4 for COM1), already gated by OUT2.
        clock: time base for the receive timeout and, if `timed`, for the characters.
        backend: where characters go to and come from; None for an open connector.
        base: first of the eight ports.
        timed: let every character take as long as the divisor and the line format say.
        flow_control: the far end waits while the receiver is full; otherwise characters are lost (LSR_OE).
        input_queue: how many bytes from the host may wait; more are lost.
    """

    REGISTERS: ClassVar[Mapping[int, str]] = {
        IER: "IER",
        LCR: "LCR",
        MCR: "MCR",
        LSR: "LSR",
        MSR: "MSR",
        SCR: "SCR",
    }

    @dataclass(slots=True)
    class State:
        """Registers and both FIFOs. A received character carries its LSR error bits shifted left by 8."""

        ier: int = 0
        iir: int = IIR_NONE
        fcr: int = 0
        lcr: int = 0
        mcr: int = 0
        lsr: int = LSR_THRE | LSR_TEMT
        msr: int = 0
        scr: int = 0
        divisor: int = POWER_ON_DIVISOR
        rbr: int = 0
        receiver: list[int] = field(default_factory=list)
        waiting: deque[int] = field(default_factory=deque)
        transmitter: list[int] = field(default_factory=list)
        shifting: int | None = None
        thre_pending: bool = False
        timeout_pending: bool = False
        inputs: int = MSR_DCD | MSR_DSR | MSR_CTS
        timeout_at: int | None = None
        receive_at: int | None = None
        shifted_at: int | None = None

    state: State

    def __init__(
        self,
        irq: IrqLine,
        clock: Clock,
        backend: CharBackend | None = None,
        *,
        base: int = 0x3F8,
        timed: bool = False,
        flow_control: bool = True,
        input_queue: int = 65_536,
        name: str = "serial",
    ) -> None:
        self.name = name
        super().__init__()
        self.ports = (PortRange(base, 8, name="serial"),)
        self._irq = irq
        self._clock = clock
        self._backend = backend
        self._timed = timed
        self._flow_control = flow_control
        self._input_queue = input_queue
        self._timeout_timer = clock.timer(self._receive_timeout, f"{self.name} receive timeout")
        self._receive_timer = clock.timer(self._receive_next, f"{self.name} receiver")
        self._shift_timer = clock.timer(self._shifted, f"{self.name} transmitter")
        self.state.msr = self.state.inputs
        if backend is not None:
            backend.on_receive(self.receive)

    # --- the bus ------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        state = self.state
        if offset == LSR:
            lsr = state.lsr
            return self._read_line_status() if lsr & LSR_CLEARED_BY_READ else lsr
        if offset == IIR:
            iir = state.iir
            if iir == IIR_THR_EMPTY:
                state.thre_pending = False
                self._update()
            return iir | IIR_FIFOS_ENABLED if state.fcr & FCR_ENABLE else iir
        if offset == MSR:
            msr = state.msr
            if msr & MSR_DELTAS:
                state.msr = msr & MSR_INPUTS
                self._update()
            return msr
        if offset == RBR:
            return state.divisor & 0xFF if state.lcr & LCR_DLAB else self._read_receiver_buffer()
        if offset == IER:
            return state.divisor >> 8 if state.lcr & LCR_DLAB else state.ier
        if offset == LCR:
            return state.lcr
        return state.mcr if offset == MCR else state.scr

    def write(self, offset: int, size: int, value: int) -> None:
        state = self.state
        if offset == THR:
            if state.lcr & LCR_DLAB:
                state.divisor = state.divisor & 0xFF00 | value
            else:
                self._write_transmitter(value)
        elif offset == IER:
            if state.lcr & LCR_DLAB:
                state.divisor = state.divisor & 0xFF | value << 8
            else:
                self._write_interrupt_enable(value)
        elif offset == MCR:
            self._write_modem_control(value & MCR_BITS)
        elif offset == FCR:
            self._write_fifo_control(value)
        elif offset == LCR:
            state.lcr = value
        elif offset == SCR:
            state.scr = value

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        state = self.state
        if (
            offset == THR
            and size == 1
            and data
            and not (self._timed or state.lcr & LCR_DLAB or state.mcr & MCR_LOOP)
        ):
            if self._backend is not None:
                self._backend.send(bytes(data))
            self._thr_emptied()
        else:
            super().write_block(offset, size, data)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        if offset <= DLM and self.state.lcr & LCR_DLAB:
            return "DLM" if offset else "DLL"
        if offset == RBR:
            return "THR" if write else "RBR"
        if offset == IIR:
            return "FCR" if write else "IIR"
        return self.REGISTERS.get(offset, "")

    # --- interrupts -----------------------------------------------------------------------------------

    def _update(self) -> None:
        """Find the interrupt of highest priority (data sheet, "Interrupt Control Functions") and drive the line."""
        state = self.state
        ier = state.ier
        if ier & IER_ELSI and state.lsr & LSR_CONDITIONS:
            iir = IIR_LINE_STATUS
        elif ier & IER_ERBFI and len(state.receiver) >= self._trigger():
            iir = IIR_DATA_AVAILABLE
        elif ier & IER_ERBFI and state.timeout_pending:
            iir = IIR_TIMEOUT
        elif ier & IER_ETBEI and state.thre_pending:
            iir = IIR_THR_EMPTY
        elif ier & IER_EDSSI and state.msr & MSR_DELTAS:
            iir = IIR_MODEM_STATUS
        else:
            iir = IIR_NONE
        state.iir = iir
        self._irq.set(iir != IIR_NONE and state.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2)

    def _trigger(self) -> int:
        """Characters in the receiver that make data available."""
        fcr = self.state.fcr
        return TRIGGER_LEVELS[fcr >> 6] if fcr & FCR_ENABLE else 1

    def _write_interrupt_enable(self, value: int) -> None:
        state = self.state
        enabled = value & ~state.ier
        state.ier = value & 0x0F
        if enabled & IER_ETBEI and state.lsr & LSR_THRE:
            state.thre_pending = True
        self._update()

    # --- transmitter ----------------------------------------------------------------------------------

    def _write_transmitter(self, value: int) -> None:
        state = self.state
        if self._timed:
            self._queue_transmitter(value)
        elif state.mcr & MCR_LOOP:
            self._thr_emptied()
            self._store(value)
        else:
            if self._backend is not None:
                self._backend.send(_BYTES[value])
            self._thr_emptied()

    def _thr_emptied(self) -> None:
        """THR was written, which withdraws its interrupt, and has emptied, which raises it anew."""
        state = self.state
        if not state.ier & IER_ETBEI:
            state.thre_pending = True
            return
        state.thre_pending = False
        self._update()
        state.thre_pending = True
        self._update()

    def _queue_transmitter(self, value: int) -> None:
        state = self.state
        state.thre_pending = False
        state.lsr &= ~(LSR_THRE | LSR_TEMT)
        self._update()
        queue = state.transmitter
        if not state.fcr & FCR_ENABLE:
            queue.clear()
        if len(queue) < FIFO_DEPTH:
            queue.append(value)
        if state.shifting is None:
            self._load_shift_register()

    def _load_shift_register(self) -> None:
        state = self.state
        state.shifting = state.transmitter.pop(0)
        self._arm_shift(self._clock.now() + self._character_time())
        if not state.transmitter:
            state.lsr |= LSR_THRE
            state.thre_pending = True
            self._update()

    def _arm_shift(self, deadline: int | None) -> None:
        self.state.shifted_at = deadline
        _arm(self._shift_timer, deadline)

    def _shifted(self) -> None:
        """The last bit of a character has left the shift register."""
        state = self.state
        state.shifted_at = None
        value, state.shifting = state.shifting, None
        assert value is not None
        if state.transmitter:
            self._load_shift_register()
        else:
            state.lsr |= LSR_TEMT
        if state.mcr & MCR_LOOP:
            self._store(value)
        elif self._backend is not None:
            self._backend.send(_BYTES[value])

    def _character_time(self) -> int:
        """Nanoseconds that a character takes on the line."""
        state = self.state
        length = 5 + (state.lcr & LCR_WORD_LENGTH)
        half_bits = 2 * (1 + length + bool(state.lcr & LCR_PARITY)) + 2
        if state.lcr & LCR_STOP_BITS:
            half_bits += 1 if length == 5 else 2
        return half_bits * SAMPLES_PER_BIT * (state.divisor or 1) * NS_PER_S // (2 * CRYSTAL_HZ)

    # --- receiver -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Characters from the host."""
        if not self.state.mcr & MCR_LOOP:  # in loop mode the SIN pin is disconnected
            self._receive_entries(data)

    def receive_break(self) -> None:
        """A break condition on the line from the host."""
        if not self.state.mcr & MCR_LOOP:
            self._receive_entries([BREAK_CHARACTER])

    def receive_bad(self, value: int, errors: int) -> None:
        """A character that arrives damaged; `errors` are LSR_PE and LSR_FE."""
        if not self.state.mcr & MCR_LOOP:
            self._receive_entries([value & 0xFF | (errors & (LSR_PE | LSR_FE)) << 8])

    def set_modem_inputs(self, inputs: int) -> None:
        """Drive the modem's pins: MSR_CTS, MSR_DSR, MSR_RI and MSR_DCD."""
        self.state.inputs = inputs & MSR_INPUTS
        self._update_modem_status()

    def _receive_entries(self, entries: bytes | list[int]) -> None:
        waiting = self.state.waiting
        room = self._input_queue + self._room() - len(waiting)
        waiting.extend(entries[:room])
        self._feed()
        if len(entries) > room:
            self._overrun(entries[-1])

    def _room(self) -> int:
        """Characters that the receiver itself can still take."""
        state = self.state
        return (FIFO_DEPTH if state.fcr & FCR_ENABLE else 1) - len(state.receiver)

    def _feed(self) -> None:
        """Move characters from the queue into the receiver, as far as room, time and the far end allow."""
        state = self.state
        waiting = len(state.waiting)
        if self._flow_control:
            waiting = min(waiting, self._room())
        if not self._timed:
            for _ in range(waiting):
                self._store(state.waiting.popleft())
        elif waiting and state.receive_at is None:
            self._arm_receive(self._clock.now() + self._character_time())

    def _arm_receive(self, deadline: int | None) -> None:
        self.state.receive_at = deadline
        _arm(self._receive_timer, deadline)

    def _receive_next(self) -> None:
        """The last bit of a character from the host has arrived."""
        state = self.state
        state.receive_at = None
        if state.waiting:
            self._store(state.waiting.popleft())
        self._feed()

    def _store(self, entry: int) -> None:
        """One character completes in the receiver's shift register."""
        if self._room() > 0:
            self._append(entry)
            self._receiver_active()
        else:
            self._overrun(entry)

    def _append(self, entry: int) -> None:
        state = self.state
        state.receiver.append(entry)
        state.lsr |= LSR_DR
        if entry > 0xFF and state.fcr & FCR_ENABLE:
            state.lsr |= LSR_FIFO_ERROR
        if len(state.receiver) == 1:
            state.lsr |= entry >> 8

    def _overrun(self, entry: int) -> None:
        """A character found the receiver full: without FIFOs it replaces the old one, else it is lost."""
        state = self.state
        state.lsr |= LSR_OE
        if not state.fcr & FCR_ENABLE and state.receiver:
            state.receiver[0] = entry
            state.lsr |= entry >> 8
        self._update()

    def _receiver_active(self) -> None:
        """A character came or was read: the timeout starts anew."""
        state = self.state
        if state.fcr & FCR_ENABLE and state.receiver:
            self._arm_timeout(self._clock.now() + TIMEOUT_CHARACTERS * self._character_time())
        else:
            self._arm_timeout(None)
        self._update()

    def _arm_timeout(self, deadline: int | None) -> None:
        self.state.timeout_at = deadline
        _arm(self._timeout_timer, deadline)

    def _receive_timeout(self) -> None:
        self.state.timeout_at = None
        self.state.timeout_pending = True
        self._update()

    def _read_receiver_buffer(self) -> int:
        state = self.state
        if not state.receiver:
            return state.rbr
        state.rbr = state.receiver.pop(0) & 0xFF
        state.timeout_pending = False
        if state.receiver:
            state.lsr |= state.receiver[0] >> 8
        else:
            state.lsr &= ~LSR_DR
        if state.waiting:
            self._feed()
        self._receiver_active()
        return state.rbr

    def _read_line_status(self) -> int:
        state = self.state
        lsr = state.lsr
        if state.receiver:
            state.receiver[0] &= 0xFF
        state.lsr = lsr & ~LSR_CLEARED_BY_READ
        if any(entry > 0xFF for entry in state.receiver):
            state.lsr |= LSR_FIFO_ERROR
        self._update()
        return lsr

    # --- control registers ------------------------------------------------------------------------------

    def _write_fifo_control(self, value: int) -> None:
        state = self.state
        toggled = (value ^ state.fcr) & FCR_ENABLE
        if (
            not value & FCR_ENABLE
        ):  # "must be a 1 when other FCR bits are written to or they will not be programmed"
            state.fcr = 0
        else:
            state.fcr = value & FCR_KEPT
        if toggled or (value & FCR_ENABLE and value & FCR_RESET_RECEIVER):
            self._reset_receiver()
        if toggled or (value & FCR_ENABLE and value & FCR_RESET_TRANSMITTER):
            self._reset_transmitter()
        self._update()

    def _reset_receiver(self) -> None:
        state = self.state
        state.receiver.clear()
        state.timeout_pending = False
        state.lsr &= ~(LSR_DR | LSR_FIFO_ERROR)
        self._arm_timeout(None)
        self._feed()

    def _reset_transmitter(self) -> None:
        """Empty the FIFO; the shift register goes on."""
        state = self.state
        state.transmitter.clear()
        if not state.lsr & LSR_THRE:
            state.lsr |= LSR_THRE
            state.thre_pending = True

    def _write_modem_control(self, value: int) -> None:
        self.state.mcr = value
        self._update_modem_status()

    def _update_modem_status(self) -> None:
        """Bring MSR in line with the pins or, in loop mode, with MCR; note what has changed."""
        state = self.state
        mcr = state.mcr
        if mcr & MCR_LOOP:
            inputs = (
                (MSR_CTS if mcr & MCR_RTS else 0)
                | (MSR_DSR if mcr & MCR_DTR else 0)
                | (MSR_RI if mcr & MCR_OUT1 else 0)
                | (MSR_DCD if mcr & MCR_OUT2 else 0)
            )
        else:
            inputs = state.inputs
        changed = (inputs ^ state.msr) & MSR_INPUTS
        deltas = changed >> 4 & (MSR_DCTS | MSR_DDSR | MSR_DDCD)
        if changed & MSR_RI and not inputs & MSR_RI:
            deltas |= MSR_TERI
        state.msr = inputs | state.msr & MSR_DELTAS | deltas
        self._update()

    # --- life cycle -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Master reset. The modem's pins, the divisor and what the host has sent stay as they are."""
        old = self.state
        waiting = old.waiting
        waiting.extendleft(reversed(old.receiver))
        self.state = self.State(divisor=old.divisor, inputs=old.inputs, msr=old.inputs, waiting=waiting)
        self.restored()
        self._feed()

    def restored(self) -> None:
        state = self.state
        _arm(self._timeout_timer, state.timeout_at)
        _arm(self._receive_timer, state.receive_at)
        _arm(self._shift_timer, state.shifted_at)
        self._update()


def _arm(timer: Timer, deadline: int | None) -> None:
    if deadline is None:
        timer.disarm()
    else:
        timer.arm(deadline)
