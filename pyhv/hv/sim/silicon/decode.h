/* The decoder: bytes to Insn (decode.c), Insn to Op (decode_map0.c, decode_map1.c). */
#ifndef SIM_DECODE_H
#define SIM_DECODE_H

#include "op.h"

/* op_decode: may another op follow in the block? */
enum { DECODE_NEXT, DECODE_END, DECODE_ALONE };

/* Length of the instruction at `bytes`; 0 when `avail` bytes are too few, -1 when it exceeds 15. `mode` is Cpu.mode. */
static int insn_parse(Insn *insn, const uint8_t *bytes, unsigned avail, unsigned mode);
static int op_decode(Cpu *cpu, const Insn *insn, Op *op, unsigned mode, unsigned off);
static void op_trailer(Op *op, unsigned off);
static void ops_optimize(Op *ops, unsigned n, unsigned mode);

#endif
