#pragma once

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_CS 0x1b
#define USER_DS 0x23
#define TASK_SELECTOR 0x28
#define LDT_SELECTOR 0x38
#define GATE_FOR_ALL 0x40       /* call gate to ring 0, DPL 3 */
#define GATE_FOR_RING0 0x48     /* call gate to ring 0, DPL 0 */
#define CONFORMING_CS 0x50      /* code that runs in its caller's ring, DPL 0 */
#define NO_SELECTOR 0x1000      /* beyond the table */

#define RETURN_VECTOR 0x80
#define RING0_VECTOR 0x81       /* an interrupt gate with DPL 0 */
