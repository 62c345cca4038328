"""Small programs keep variables right beside the loops that use them: writing those must not throw the loop's code away."""

from pathlib import Path

import pyhv


def test_a_variable_beside_its_loop_kills_no_code(tmp_path: Path, sim: object) -> None:
    guest = tmp_path / "loop.bin"
    # mov cx, 1000; 1: inc word [flag]; loop 1b; mov ax, [flag]; sub ax, 1000; out 0xf4, al; hlt; flag: .word 0
    guest.write_bytes(bytes.fromhex("b9e803 ff06127c e2fa a1127c 2de803 e6f4 f4 0000"))
    result = pyhv.run(pyhv.Machine(guest, format="flat"), backend="sim", timeout=20).check()
    assert result.statistics["smc_kills"] < 10
    assert result.statistics["ops_decoded"] < 100


def test_a_store_into_the_next_instruction_is_seen_at_once(tmp_path: Path, sim: object) -> None:
    guest = tmp_path / "modify.bin"
    # mov byte [next + 1], 0; next: mov al, 7; out 0xf4, al; hlt
    guest.write_bytes(bytes.fromhex("c606067c00 b007 e6f4 f4"))
    result = pyhv.run(pyhv.Machine(guest, format="flat"), backend="sim", timeout=20)
    assert result.guest_status == 0
    assert result.statistics["smc_kills"] >= 1
