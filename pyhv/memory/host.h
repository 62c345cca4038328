/* Host memory for guests: mappings whose alignment suits huge pages. */

/* A sparse in-memory file; `huge_shift` 0 for ordinary pages, 21 or 30 for hugetlb ones. The fd or a negative errno. */
int pyhv_memory_file(const char *name, size_t size, int huge_shift);

/* Map `size` bytes of `fd` (-1: private anonymous memory) at an address that is `phase` modulo `align`.
 * NULL on failure, *error is then the errno. `reserve` asks for hugetlb pages to be set aside now. */
void *pyhv_memory_map(int fd, size_t size, size_t offset, size_t align, size_t phase, int reserve, int *error);

int pyhv_memory_unmap(void *address, size_t size);

/* Ask for transparent huge pages. */
int pyhv_memory_advise_huge(void *address, size_t size);

/* Give whole pages back to the host, those of a file (fd, offset) or of anonymous memory (fd -1); zeros afterwards. */
int pyhv_memory_discard(int fd, void *address, size_t offset, size_t size);
