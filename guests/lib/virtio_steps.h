/* What the virtio guests do with each device, over whatever transport: a line for every step that worked. */
#pragma once
#include "virtio.h"

/* Uses a device of a type that it knows by interrupts, and resets it then; 0 for another type. */
int virtio_use(struct virtio *);
