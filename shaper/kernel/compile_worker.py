"""Compiles by bcc, as a process of its own: `python -m shaper.kernel.compile_worker`.

clang writes its messages to descriptor 2, makes its maps while it compiles, and keeps what it
allocates: as a child, the messages are its standard error, and the rest goes with it. Reads a
request from standard input, writes the object to standard output, both JSON; see `compile`.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
import sys
from dataclasses import asdict
from typing import Any, Final

from shaper.kernel.compile import MapSpec, ProgramObject, ProgramSpec, bcc_module, decode_type

_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1


def main() -> int:
    """0 where the object was written; else the reason stands on standard error."""
    request = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print is not part of the answer
    try:
        compiled = _compile(**request)
    except Exception as error:  # noqa: BLE001 (bcc raises the bare class)
        print(error, file=sys.stderr)
        return 1
    with open(answer, "w") as file:  # noqa: PTH123
        json.dump(asdict(compiled), file)
    return 0


def _compile(text: str, digest: str, flags: list[str], programs: list[str]) -> ProgramObject:
    module = bcc_module().BPF(text=text.encode(), cflags=flags)
    maps = _map_specs(module)
    by_fd = {module[name.encode()].map_fd: name for name in maps}
    specs = {name: _program_spec(module.dump_func(name.encode()), by_fd) for name in programs}
    return ProgramObject(digest, maps, specs)


def _map_specs(module: Any) -> dict[str, MapSpec]:
    from bcc.libbcc import lib

    # bcc's binding leaves these two undeclared: ctypes would cut the module's address to 32 bits,
    # which goes well in a non-PIE python only (its heap lies below 4 GiB).
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    lib.bpf_num_tables.restype = ctypes.c_size_t
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    specs = {}
    for number in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, number)
        key_type = lib.bpf_table_key_desc(module.module, name).decode()
        value_type = lib.bpf_table_leaf_desc(module.module, name).decode()
        specs[name.decode()] = MapSpec(
            map_type=lib.bpf_table_type_id(module.module, number),
            key_size=ctypes.sizeof(decode_type(key_type)),
            value_size=ctypes.sizeof(decode_type(value_type)),
            max_entries=lib.bpf_table_max_entries_id(module.module, number),
            flags=lib.bpf_table_flags_id(module.module, number),
            key_type=key_type,
            value_type=value_type,
        )
    return specs


def _program_spec(instructions: bytes, by_fd: dict[int, str]) -> ProgramSpec:
    code = bytearray(instructions)
    maps = []
    index = 0
    while index < len(code) // 8:
        opcode, registers, _, immediate = struct.unpack_from("<BBhi", code, index * 8)
        if opcode == _LD_IMM64:
            if registers >> 4 == _PSEUDO_MAP_FD:
                maps.append((index, by_fd[immediate]))
                struct.pack_into("<i", code, index * 8 + 4, 0)
            index += 1  # its second half
        index += 1
    return ProgramSpec(base64.b64encode(bytes(code)).decode(), tuple(maps))


if __name__ == "__main__":
    sys.exit(main())
