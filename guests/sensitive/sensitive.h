#pragma once

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_CS 0x1b
#define USER_SS 0x23
#define NO_SELECTOR 0x1000      /* beyond the table */
