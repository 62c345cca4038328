#pragma once

#define USER_CS 0x1b
#define USER_SS 0x23
