/* What the benchmark's guest does with its memory. One static program, two roles:
 *
 *   bench-guest serve            holds the memory, answers commands at a unix socket, one at a time
 *   bench-guest COMMAND [ARG...] asks the server, prints its answer: one line of JSON
 *
 * Commands:
 *   fill MB              MB (2^20 bytes) of data that no codec makes smaller; all that was filled before is given up
 *   verify               compare every page with its checksum
 *   change PERCENT       rewrite that share of the pages, scattered evenly with jitter: the same ones every time
 *   read                 read every word once
 *   work COUNT           COUNT read-modify-writes at random places, then the same again, which undoes them
 *   tick-start US        a tick every US microseconds: one byte to the serial line, and the gap to the one before
 *   tick-stop            the ticks' gaps, by this machine's own clock
 *
 * The guest's clock stands still while the machine is stopped, so a pause shows only in the bytes on the serial
 * line, whose time the host takes. Times in answers are the guest's own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define TEMPLATE_PAGES 256
#define SOCKET "/run/bench-guest.sock"
#define SERIAL "/dev/ttyS0"
#define BUCKETS 12

static uint64_t template[TEMPLATE_PAGES * WORDS];
static uint64_t *data, *checksums, pages, generation;

static pthread_t ticker;
static atomic_bool ticking;
static long tick_us;
static uint64_t ticks, largest_gap, buckets[BUCKETS]; /* bucket n: gaps from 2^n to 2^(n+1) intervals */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* splitmix64, by Sebastiano Vigna, public domain. */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void make_template(void) {
    uint64_t x = (uint64_t)time(NULL) << 20 | 1;
    for (size_t n = 0; n < TEMPLATE_PAGES * WORDS; n++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        template[n] = x;
    }
}

static uint64_t checksum(const uint64_t *page) {
    uint64_t sum = 0;
    for (int n = 0; n < WORDS; n++) sum = sum * 0x9e3779b97f4a7c15u + page[n];
    return sum;
}

/* A page of random data, turned by a mask that no other page has: no codec finds it again. */
static void write_page(uint64_t number) {
    const uint64_t *from = template + number % TEMPLATE_PAGES * WORDS;
    uint64_t *to = data + number * WORDS, mask = mix(number ^ generation << 40);
    for (int n = 0; n < WORDS; n++) to[n] = from[n] ^ mask;
    checksums[number] = checksum(to);
}

static int say(char *answer, size_t room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(answer, room, format, arguments);
    va_end(arguments);
    return 0;
}

static int fill(uint64_t megabytes, char *answer, size_t room) {
    double began = now();
    if (data) munmap(data, pages * PAGE);
    free(checksums);
    pages = (megabytes << 20) / PAGE;
    data = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    checksums = calloc(pages, sizeof *checksums);
    if (data == MAP_FAILED || !checksums) {
        data = NULL;
        return say(answer, room, "{\"ok\": false, \"error\": \"no memory\"}");
    }
    madvise(data, pages * PAGE, MADV_HUGEPAGE);
    for (uint64_t n = 0; n < pages; n++) write_page(n);
    return say(answer, room, "{\"ok\": true, \"pages\": %lu, \"seconds\": %.3f}", pages, now() - began);
}

static int verify(char *answer, size_t room) {
    double began = now();
    uint64_t bad = 0;
    for (uint64_t n = 0; n < pages; n++) bad += checksum(data + n * WORDS) != checksums[n];
    return say(answer, room, "{\"ok\": %s, \"pages\": %lu, \"bad\": %lu, \"seconds\": %.3f}",
               pages && !bad ? "true" : "false", pages, bad, now() - began);
}

static int change(double percent, char *answer, size_t room) {
    double step = 100.0 / percent;
    uint64_t changed = 0;
    generation++;
    for (; (changed + 1) * step <= pages; changed++) write_page(changed * step + mix(changed) % (uint64_t)step);
    return say(answer, room, "{\"ok\": true, \"pages\": %lu}", changed);
}

static int read_all(char *answer, size_t room) {
    double began = now();
    uint64_t sum = 0;
    for (const uint64_t *w = data, *end = data + pages * WORDS; w < end; w += 8)
        sum += w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7];
    return say(answer, room, "{\"ok\": true, \"sum\": %lu, \"seconds\": %.3f}", sum, now() - began);
}

static double modify(uint64_t count) {
    double began = now();
    uint64_t x = 88172645463325252u, words = pages * WORDS;
    for (uint64_t n = 0; n < count; n++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        data[(unsigned __int128)x * words >> 64] ^= x;
    }
    return count / (now() - began);
}

static int work(uint64_t count, char *answer, size_t room) {
    double first = modify(count), second = modify(count);
    return say(answer, room, "{\"ok\": true, \"first\": %.0f, \"second\": %.0f}", first, second);
}

static void *tick(void *unused) {
    (void)unused;
    int serial = open(SERIAL, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    double before = now();
    while (ticking) {
        next.tv_nsec += tick_us * 1000;
        next.tv_sec += next.tv_nsec / 1000000000, next.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        if (serial >= 0 && write(serial, ".", 1) < 0 && errno != EAGAIN) break;
        double at = now();
        uint64_t gap = (at - before) * 1e6, bucket = 0;
        before = at;
        while (bucket < BUCKETS - 1 && gap >= (uint64_t)tick_us << (bucket + 1)) bucket++;
        buckets[bucket]++, ticks++;
        if (gap > largest_gap) largest_gap = gap;
        if (gap > (uint64_t)tick_us * 4) clock_gettime(CLOCK_MONOTONIC, &next); /* no burst to catch up */
    }
    if (serial >= 0) close(serial);
    return NULL;
}

static int tick_stop(char *answer, size_t room) {
    char list[BUCKETS * 24] = "";
    if (ticking) {
        ticking = false;
        pthread_join(ticker, NULL);
    }
    for (int n = 0; n < BUCKETS; n++) sprintf(list + strlen(list), "%s%lu", n ? ", " : "", buckets[n]);
    return say(answer, room, "{\"ok\": true, \"ticks\": %lu, \"largest_us\": %lu, \"histogram\": [%s]}", ticks,
               largest_gap, list);
}

static int tick_start(long interval, char *answer, size_t room) {
    tick_stop(answer, room);
    tick_us = interval, ticks = largest_gap = 0;
    memset(buckets, 0, sizeof buckets);
    ticking = true;
    if (interval <= 0 || pthread_create(&ticker, NULL, tick, NULL)) {
        ticking = false;
        return say(answer, room, "{\"ok\": false, \"error\": \"no ticker\"}");
    }
    return say(answer, room, "{\"ok\": true}");
}

static int obey(char *line, char *answer, size_t room) {
    const char *command = strtok(line, " \n"), *first = strtok(NULL, " \n");
    if (!command) return say(answer, room, "{\"ok\": false, \"error\": \"no command\"}");
    if (!strcmp(command, "ping")) return say(answer, room, "{\"ok\": true}");
    if (!strcmp(command, "fill") && first) return fill(strtoul(first, NULL, 10), answer, room);
    if (!strcmp(command, "tick-start") && first) return tick_start(strtol(first, NULL, 10), answer, room);
    if (!strcmp(command, "tick-stop")) return tick_stop(answer, room);
    if (!data) return say(answer, room, "{\"ok\": false, \"error\": \"nothing is filled, or it makes no sense\"}");
    if (!strcmp(command, "verify")) return verify(answer, room);
    if (!strcmp(command, "read")) return read_all(answer, room);
    if (!strcmp(command, "change") && first) return change(strtod(first, NULL), answer, room);
    if (!strcmp(command, "work") && first) return work(strtoul(first, NULL, 10), answer, room);
    return say(answer, room, "{\"ok\": false, \"error\": \"unknown command\"}");
}

static struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};

static int serve(void) {
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(SOCKET);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4)) return 1;
    make_template();
    mlockall(MCL_CURRENT);
    for (;;) {
        char line[256] = "", answer[1024] = "";
        int client = accept(listener, NULL, NULL);
        if (client < 0) return 1;
        if (read(client, line, sizeof line - 1) > 0) {
            obey(line, answer, sizeof answer);
            dprintf(client, "%s\n", answer);
        }
        close(client);
    }
}

static int ask(int count, char **words) {
    char line[256] = "", answer[1024];
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address)) return 2;
    for (int n = 0; n < count; n++) {
        strncat(line, words[n], sizeof line - strlen(line) - 2);
        strcat(line, " ");
    }
    if (write(server, line, strlen(line)) < 0) return 2;
    for (ssize_t got; (got = read(server, answer, sizeof answer)) > 0;) {
        if (write(1, answer, got) < 0) return 2;
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 2) return 2;
    return strcmp(words[1], "serve") ? ask(count - 1, words + 1) : serve();
}
