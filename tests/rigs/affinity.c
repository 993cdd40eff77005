/* Preloaded into slurmd: a task may be bound to cores that this machine lacks. The kernel refuses such masks. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int sched_setaffinity(pid_t task, size_t bytes, const cpu_set_t *mask) {
  if (syscall(SYS_sched_setaffinity, task, bytes, mask) >= 0)
    return 0;
  return errno == EINVAL && CPU_COUNT_S(bytes, mask) > 0 ? 0 : -1;
}
