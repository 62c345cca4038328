/* The whole of the silicon as one translation unit: handlers inline what they need from every part. */
#include <stdlib.h>

#include "cpu.h"
#include "block.h"
#include "access.h"

static u64 cpu_guest_tsc(Cpu *cpu);
static void cpuid_query(Cpu *cpu, u32 function, u32 index, u32 out[4]);
static bool msr_read(Cpu *cpu, u32 index, u64 *v);
static bool msr_write(Cpu *cpu, u32 index, u64 v);
static void svm_msr_intercept(Cpu *cpu, const Op *op, u32 index, bool write);
static const Op *op_end(Cpu *cpu, const Op *op);
static void mmio_forget(Cpu *cpu);
static u64 icount_now(const Cpu *cpu);

#include "tlb.c"
#include "paging.c"
#include "memory.c"
#include "mode.c"
#include "block.c"
#include "exec_bits.c"
#include "exec_int.c"
#include "exec_flow.c"
#include "exec_string.c"
#include "segment.c"
#include "task.c"
#include "trace.c"
#include "interrupt.c"
#include "exec_system.c"
#include "exec_control.c"
#include "exec_table.c"
#include "exec_io.c"
#include "msr.c"
#include "cpuid.c"
#include "svm.c"
#include "decode.c"
#include "decode_map0.c"
#include "decode_map1.c"
#include "run.c"
#include "api.c"
#include "lapic.c"
#include "vec.c"
#include "vec_table.c"
#include "vec_stub.c"
#include "vec_fast.c"
#include "vec_fp.c"
#include "vec_misc.c"
#include "vec_vex.c"
#include "vec_vex_fast.c"
#include "x87.c"
#include "x87_env.c"
#include "xsave.c"
