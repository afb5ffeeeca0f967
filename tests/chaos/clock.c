/* Preloaded into a server: its wall clock is off by the seconds that the file STATEMQ_TEST_CLOCK holds, a double as it lies in memory.
   The file is mapped, so that a step of the clock is one write by another process and asking for the time stays cheap. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile double *off_s;
static int (*kernels)(clockid_t, struct timespec *);

__attribute__((constructor)) static void prepare(void) {
    const char *path = getenv("STATEMQ_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    kernels = dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        void *page = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
        if (page != MAP_FAILED) off_s = page;
    }
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int answer;
    if (!kernels) kernels = dlsym(RTLD_NEXT, "clock_gettime");
    answer = kernels(which, now);
    if (answer == 0 && off_s && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += (time_t)*off_s;
    return answer;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec at;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
