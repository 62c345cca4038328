"""What a network device counts."""

from __future__ import annotations

from pyhv.record import record


@record
class NetCounters:
    """Frames and bytes by what became of them; "sent" and "received" are the guest's words.

    - `bad_header`: frames whose header or length was wrong, not sent; `unsent`: frames that the host did not take.
    - `filtered`: frames that the driver does not want; `lost`: frames that fit no buffer, or are longer than the MTU.
    - `bad_buffer`: receive buffers that are too short for a header; `bad_command`: commands answered with an error.
    """

    sent: int = 0
    sent_bytes: int = 0
    bad_header: int = 0
    unsent: int = 0
    received: int = 0
    received_bytes: int = 0
    filtered: int = 0
    lost: int = 0
    bad_buffer: int = 0
    bad_command: int = 0
