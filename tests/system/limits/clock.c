// Loaded into a program before the C library, whose wall clock it moves by the seconds that stand in a file of 8 bytes. The
// monotonic clock stays. Waits until a moment of the wall clock are moved back, as the kernel's clock is the true one.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_s;
static int (*real_pthread_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_thread_wait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_pthread_wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_thread_wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    const char *path = getenv("MILLPOND_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        abort();
    }
    offset_s = mapped;
    close(file);
}

static int64_t offset(void) { return offset_s ? *offset_s : 0; }

// By the system call: a look for the C library's own would allocate, and allocators ask for the time.
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += offset();
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) {
        *now = precise.tv_sec;
    }
    return precise.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec truly = {until->tv_sec - offset(), until->tv_nsec};
    return real_pthread_wait(condition, mutex, &truly);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    struct timespec truly = {until->tv_sec - offset(), until->tv_nsec};
    return real_thread_wait(condition, mutex, &truly);
}
