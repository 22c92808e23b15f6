/*
 * Both ends of a proxy, as cheap as can be, so that what they cost does not hide what it costs.
 *
 *   peer serve PORT                                    a backend
 *   peer load PORT CONNECTIONS SECONDS MODE REQUEST... a client
 *
 * The backend answers /BYTES with so many bytes after it has read the request's body, whatever its
 * length, and a request with "Upgrade:" with 101, after which it sends back what it gets.
 *
 * The client keeps its connections busy with one request each at a time, cycling through the files
 * REQUEST, each of them a whole head. MODE `http` reads the answers; `upload:BYTES` sends a body of
 * so many bytes behind each head; `echo:BYTES` sends the head once and then messages, each of which
 * has to come back before the next. Where a head has "@@@@@@@@", it gets a new number each time.
 * It prints a JSON object: requests (or messages), errors, bytes of bodies, seconds, and the p50 and
 * p99 of the time that one took, in microseconds.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256 * 1024)
#define HEAD (16 * 1024)
#define EVENTS 256
#define SAMPLES (4 * 1024 * 1024)

static char zeros[PIECE], sink[PIECE];
static long long bytes; /* of bodies, sent or read */

static void fail(const char *doing)
{
    perror(doing);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* One connection of either end. `left` bytes of a body are still to come, `owed` to be sent. */
struct peer {
    int fd;
    bool tunnel, waiting, full;
    size_t filled;
    long long left, owed, echoed;
    double begun;
    char head[HEAD + 1];
};

static void watch(int epoll, struct peer *peer, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (peer->full ? EPOLLOUT : 0), .data.ptr = peer};
    if (epoll_ctl(epoll, operation, peer->fd, &event) < 0)
        fail("epoll_ctl");
}

/* Send `length` bytes and then the zeros that are owed, as far as the kernel takes them. Heads are
 * short, so that a kernel which takes only part of one is a failure. */
static bool send_out(int epoll, struct peer *peer, const char *data, size_t length)
{
    bool was_full = peer->full;
    peer->full = false;
    if (length && send(peer->fd, data, length, peer->owed ? MSG_MORE : 0) != (ssize_t)length)
        return false;
    while (peer->owed > 0) {
        ssize_t sent = send(peer->fd, zeros, peer->owed < PIECE ? peer->owed : PIECE, 0);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0) {
            peer->full = true;
            break;
        }
        peer->owed -= sent;
        bytes += sent;
    }
    if (peer->full != was_full)
        watch(epoll, peer, EPOLL_CTL_MOD);
    return true;
}

static long long field(const char *head, const char *name)
{
    const char *found = strcasestr(head, name);
    return found ? atoll(found + strlen(name)) : 0;
}

/* ---- the backend ---- */

static bool answer(int epoll, struct peer *peer)
{
    char head[256];
    const char *path = strchr(peer->head, ' ');
    int length;
    if (strcasestr(peer->head, "\r\nupgrade:")) {
        peer->tunnel = true;
        length = sprintf(head, "HTTP/1.1 101 Switching Protocols\r\n"
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    } else {
        peer->owed = path ? atoll(path + 2) : 0;
        length = sprintf(head,
                         "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         "Date: Thu, 27 Nov 2025 10:00:00 GMT\r\nContent-Length: %lld\r\n\r\n",
                         peer->owed);
    }
    return send_out(epoll, peer, head, length);
}

static bool backend_reads(int epoll, struct peer *peer)
{
    ssize_t got;
    if (peer->tunnel) {
        got = recv(peer->fd, sink, PIECE, 0);
        return got > 0 && send(peer->fd, sink, got, 0) == got;
    }
    if (peer->left > 0) {
        got = recv(peer->fd, sink, PIECE < peer->left ? PIECE : peer->left, 0);
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        peer->left -= got;
        return peer->left > 0 || answer(epoll, peer);
    }
    got = recv(peer->fd, peer->head + peer->filled, HEAD - peer->filled, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    peer->filled += got;
    peer->head[peer->filled] = 0;
    char *end = strstr(peer->head, "\r\n\r\n");
    if (!end)
        return peer->filled < HEAD;
    end[2] = 0;
    peer->left = field(peer->head, "content-length:") - (peer->head + peer->filled - end - 4);
    peer->filled = 0;
    return peer->left > 0 || answer(epoll, peer);
}

static void serve(int port)
{
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    struct sockaddr_in address = loopback(port);
    struct epoll_event events[EVENTS];
    static struct peer entrance;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("listen");
    entrance.fd = listener;
    watch(epoll, &entrance, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (peer == &entrance) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0)
                    continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                peer = calloc(1, sizeof *peer);
                peer->fd = fd;
                watch(epoll, peer, EPOLL_CTL_ADD);
                continue;
            }
            bool well = true;
            if (events[i].events & EPOLLOUT)
                well = send_out(epoll, peer, NULL, 0);
            if (well && events[i].events & ~EPOLLOUT)
                well = backend_reads(epoll, peer);
            if (!well) {
                close(peer->fd);
                free(peer);
            }
        }
    }
}

/* ---- the client ---- */

static char *requests[64];
static int kinds, next_kind;
static long long upload, echo, done, errors, number;
static float *samples;

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, HEAD + 1);
    if (!file || !fread(text, 1, HEAD, file))
        fail(path);
    fclose(file);
    return text;
}

static void connect_to(int epoll, struct peer *peer, int port)
{
    int one = 1;
    struct sockaddr_in address = loopback(port);
    memset(peer, 0, sizeof *peer);
    peer->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    fcntl(peer->fd, F_SETFL, O_NONBLOCK);
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(epoll, peer, EPOLL_CTL_ADD);
}

static bool ask(int epoll, struct peer *peer)
{
    char head[HEAD + 1], *mark;
    peer->begun = now();
    peer->waiting = true;
    if (peer->tunnel) {
        peer->owed = echo;
        return send_out(epoll, peer, NULL, 0);
    }
    strcpy(head, requests[next_kind++ % kinds]);
    if ((mark = strstr(head, "@@@@@@@@"))) {
        char text[16];
        sprintf(text, "%08llx", ++number);
        memcpy(mark, text, 8);
    }
    peer->owed = upload;
    return send_out(epoll, peer, head, strlen(head));
}

static bool is_done(int epoll, struct peer *peer)
{
    if (done < SAMPLES)
        samples[done] = (now() - peer->begun) * 1e6;
    done++;
    return ask(epoll, peer);
}

static bool client_reads(int epoll, struct peer *peer)
{
    ssize_t got;
    if (peer->tunnel || peer->left > 0) {
        got = recv(peer->fd, sink, PIECE, 0);
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        bytes += got;
        if (peer->tunnel && (peer->echoed += got) < echo)
            return true;
        peer->echoed = 0;
        if (!peer->tunnel && (peer->left -= got) > 0)
            return true;
        return is_done(epoll, peer);
    }
    got = recv(peer->fd, peer->head + peer->filled, HEAD - peer->filled, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    peer->filled += got;
    peer->head[peer->filled] = 0;
    char *end = strstr(peer->head, "\r\n\r\n");
    if (!end)
        return peer->filled < HEAD;
    long long begun = peer->head + peer->filled - end - 4;
    bool switched = !strncmp(peer->head, "HTTP/1.1 101", 12);
    if (!switched && strncmp(peer->head, "HTTP/1.1 200", 12))
        return false;
    end[2] = 0;
    peer->left = switched ? 0 : field(peer->head, "content-length:") - begun;
    peer->filled = 0;
    bytes += begun;
    if (switched) {
        peer->tunnel = true;
        return ask(epoll, peer);
    }
    return peer->left > 0 || is_done(epoll, peer);
}

static int by_size(const void *a, const void *b)
{
    return (*(float *)a > *(float *)b) - (*(float *)a < *(float *)b);
}

static void report(double seconds)
{
    long long kept = done < SAMPLES ? done : SAMPLES;
    qsort(samples, kept, sizeof *samples, by_size);
    printf("{\"requests\": %lld, \"errors\": %lld, \"bytes\": %lld, \"seconds\": %.3f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           done, errors, bytes, seconds, kept ? samples[kept / 2] : 0.0,
           kept ? samples[kept * 99 / 100] : 0.0);
}

static void load(int port, int connections, double seconds)
{
    int epoll = epoll_create1(0);
    struct peer *peers = calloc(connections, sizeof *peers);
    struct epoll_event events[EVENTS];
    samples = malloc(SAMPLES * sizeof *samples);
    for (int i = 0; i < connections; i++) {
        connect_to(epoll, &peers[i], port);
        ask(epoll, &peers[i]);
    }
    double begun = now(), end = begun + seconds;
    while (now() < end) {
        int count = epoll_wait(epoll, events, EVENTS, 100);
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            bool well = true;
            if (events[i].events & EPOLLOUT)
                well = send_out(epoll, peer, NULL, 0);
            if (well && events[i].events & ~EPOLLOUT)
                well = client_reads(epoll, peer);
            if (!well) {
                errors++;
                close(peer->fd);
                connect_to(epoll, peer, port);
                ask(epoll, peer);
            }
        }
    }
    report(now() - begun);
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    if (count == 3 && !strcmp(words[1], "serve"))
        serve(atoi(words[2]));
    if (count < 7 || strcmp(words[1], "load")) {
        fprintf(stderr, "usage: see the head of peer.c\n");
        return 2;
    }
    sscanf(words[5], "upload:%lld", &upload);
    sscanf(words[5], "echo:%lld", &echo);
    for (int i = 6; i < count && kinds < 64; i++)
        requests[kinds++] = read_file(words[i]);
    load(atoi(words[2]), atoi(words[3]), atof(words[4]));
    return 0;
}
