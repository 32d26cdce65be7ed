"""The little a terminal needs when somebody types into a pod: echo, backspace, line ends, Ctrl-C and Ctrl-D."""

from typing import Final

LONGEST_LINE: Final = 4096
INTERRUPT, END, ERASE, DELETE = b"\x03", b"\x04", b"\x08", b"\x7f"


class Terminal:
    """Lines in the making."""

    def __init__(self) -> None:
        self._line = bytearray()
        self.is_at_end = False

    def shown(self, data: bytes) -> bytes:
        """Turn output into what a terminal shows."""
        return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def typed(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Take keys; return finished lines, what to echo, and whether Ctrl-C was among them."""
        lines, echo, interrupts = bytearray(), bytearray(), False
        for key in (data[at : at + 1] for at in range(len(data))):
            if key in {b"\r", b"\n"}:
                lines += self._line + b"\n"
                self._line.clear()
                echo += b"\r\n"
            elif key == INTERRUPT:
                self._line.clear()
                echo += b"^C\r\n"
                interrupts = True
            elif key == END and not self._line:
                self.is_at_end = True
            elif key in {ERASE, DELETE}:
                if self._line:
                    del self._line[-1:]
                    echo += b"\b \b"
            elif key >= b" " and len(self._line) < LONGEST_LINE:
                self._line += key
                echo += key
        return bytes(lines), bytes(echo), interrupts
