/* System calls that the standard library does not offer. A result below 0 is a negative errno. */

/* openat2 with O_PATH | O_NOFOLLOW | O_CLOEXEC | flags; never over a mount point (EXDEV). */
int pyhv_fs_open_here(int directory, const char *name, int flags);

int pyhv_fs_rename(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags);

/* Whole records of linux_dirent64 into `buffer`; how many bytes, 0 at the end of the directory. */
long pyhv_fs_getdents(int directory, char *buffer, size_t size);

/* f_type of struct statfs. */
int64_t pyhv_fs_type(int fd);

/* Times in seconds and nanoseconds; UTIME_NOW and UTIME_OMIT as nanoseconds. Follows `path`. */
int pyhv_fs_utimens(const char *path, int64_t atime, int64_t atime_ns, int64_t mtime, int64_t mtime_ns);

int pyhv_fs_fallocate(int fd, int mode, int64_t offset, int64_t length);

int pyhv_fs_syncfs(int fd);
