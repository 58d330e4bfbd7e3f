// Preloaded into a server: its writes to the store fail while $FAILING_DISK/write exists, its syncs
// while $FAILING_DISK/sync does, with the error of a disk that is broken.
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(const char* operation) {
  const int before = errno;
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%s/%s", getenv("FAILING_DISK"), operation);
  const int fails = access(path, F_OK) == 0;
  errno = fails ? EIO : before;
  return fails;
}

// Whether `fd` is the store's. Its index of the log is shared memory, which happens to be a file.
static int is_store(int fd) {
  char link[64];
  char target[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, target, sizeof(target) - 1);
  if (length < 0) return 0;
  target[length] = '\0';
  return strstr(target, "/epo.db") != NULL && strstr(target, "-shm") == NULL;
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  if (is_store(fd) && fails("write")) return -1;
  return syscall(SYS_pwrite64, fd, bytes, size, offset);
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  return pwrite64(fd, bytes, size, offset);
}
int fdatasync(int fd) { return fails("sync") ? -1 : (int)syscall(SYS_fdatasync, fd); }
int fsync(int fd) { return fails("sync") ? -1 : (int)syscall(SYS_fsync, fd); }
