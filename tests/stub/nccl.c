/* A stand-in for NCCL (libnccl.so.2), beside that of the driver (driver.c), for machines without a GPU.

   Ranks are processes, which meet in a file that all map; numbers really are reduced, rank by rank. What NCCL
   demands is checked: one device for each rank, which is current where its communicator is used; memory of that
   device; groups that end; the same calls in the same order on all ranks. Each call is a line of the driver's log,
   mistakes begin with "!". As on a device, what a rank has enqueued waits for the others until it is aborted.

   Functions and numbers are those of NCCL's stable interface; no header of it is needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OK = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { INT64 = 4, FLOAT32 = 7, FLOAT64 = 8 };
enum { SUM = 0, MAX = 2, AVG = 4 };
enum { MOST_RANKS = 8, CHUNK = 1 << 16 };
struct id { char path[128]; };

/* ---------------------------------------------------------------- the driver's stand-in */

static void *driver(const char *name)
{
    static void *library;
    if (!library) library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *found = library ? dlsym(library, name) : NULL;
    if (!found) { fprintf(stderr, "no %s: the driver's stand-in is not loaded\n", name); abort(); }
    return found;
}
static void say(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    ((void (*)(const char *))driver("stub_say"))(text);
}
static int device(void) { return ((int (*)(void))driver("stub_device"))(); }

/* ---------------------------------------------------------------- ranks, which meet in a file */

struct seat { atomic_int device, used; atomic_long turn; uint64_t signature; unsigned char data[CHUNK]; };
struct room { struct seat seats[MOST_RANKS]; };
struct comm { struct room *room; int rank, size, device; atomic_int aborted; uint64_t signature; };

/* Wait until all ranks have come to this turn; whether they have (else the communicator is aborted). */
static int meet(struct comm *c)
{
    long turn = atomic_fetch_add(&c->room->seats[c->rank].turn, 1) + 1;
    for (int r = 0; r < c->size; r++)
        while (atomic_load(&c->room->seats[r].turn) < turn) {
            if (atomic_load(&c->aborted)) return 0;
            usleep(50);
        }
    return 1;
}

int ncclGetVersion(int *version) { *version = 22803; return OK; }

int ncclGetUniqueId(struct id *id)
{
    memset(id, 0, sizeof *id);
    snprintf(id->path, sizeof id->path, "/tmp/fastnn-nccl-XXXXXX");
    int file = mkstemp(id->path);
    if (file < 0 || ftruncate(file, sizeof(struct room))) return SYSTEM_ERROR;
    close(file);
    say("nccl GetUniqueId");
    return OK;
}

int ncclCommInitRank(struct comm **comm, int size, struct id id, int rank)
{
    if (size > MOST_RANKS || rank < 0 || rank >= size) return INVALID_ARGUMENT;
    if (device() < 0) { say("! nccl CommInitRank without a context"); return INVALID_USAGE; }
    int file = open(id.path, O_RDWR);
    if (file < 0) return INVALID_ARGUMENT;
    struct comm *c = *comm = calloc(1, sizeof *c);
    c->room = mmap(NULL, sizeof(struct room), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    c->rank = rank;
    c->size = size;
    c->device = device();
    if (atomic_exchange(&c->room->seats[rank].used, 1)) { say("! nccl two ranks %d", rank); return INVALID_USAGE; }
    c->room->seats[rank].device = c->device;
    meet(c);
    unlink(id.path);
    for (int r = 0; r < size; r++)
        if (r != rank && c->room->seats[r].device == c->device) {
            say("! nccl ranks %d and %d have the same device %d", rank, r, c->device);
            return INVALID_USAGE;
        }
    say("nccl CommInitRank rank=%d size=%d device=%d", rank, size, c->device);
    return OK;
}

int ncclCommAbort(struct comm *c) { say("nccl CommAbort rank=%d", c->rank); atomic_store(&c->aborted, 1); return OK; }
int ncclCommDestroy(struct comm *c) { say("nccl CommDestroy rank=%d", c->rank); return OK; }
int ncclCommFinalize(struct comm *c) { return OK; }
int ncclCommGetAsyncError(struct comm *c, int *error) { *error = OK; return OK; }
int ncclCommCount(struct comm *c, int *count) { *count = c->size; return OK; }
int ncclCommUserRank(struct comm *c, int *rank) { *rank = c->rank; return OK; }
int ncclCommCuDevice(struct comm *c, int *number) { *number = c->device; return OK; }
const char *ncclGetErrorString(int error) { return error ? "refused by the stand-in" : "no error"; }
const char *ncclGetLastError(struct comm *c) { return ""; }

/* ---------------------------------------------------------------- calls */

struct call { struct comm *comm; const char *from; char *to; size_t count; int type, op; struct call *next; };

static size_t item(int type) { return type == FLOAT32 ? 4 : 8; }

#define REDUCE(type) do { \
        const type *x = (const type *)c->room->seats[r].data; \
        type *y = (type *)sum; \
        for (size_t k = 0; k < n; k++) y[k] = !r ? x[k] : call->op == MAX ? (x[k] > y[k] ? x[k] : y[k]) : y[k] + x[k]; \
        if (r == c->size - 1 && call->op == AVG) for (size_t k = 0; k < n; k++) y[k] /= c->size; \
    } while (0)

static void all_reduce(struct call *call)
{
    struct comm *c = call->comm;
    struct seat *mine = &c->room->seats[c->rank];
    size_t width = item(call->type), most = CHUNK / width;
    static _Thread_local unsigned char sum[CHUNK];
    c->signature = (c->signature * 31 + call->count) * 31 + call->type * 8 + call->op;
    for (size_t begin = 0; begin < call->count; begin += most) {
        size_t n = call->count - begin < most ? call->count - begin : most;
        memcpy(mine->data, call->from + begin * width, n * width);
        mine->signature = c->signature;
        if (atomic_load(&c->aborted) || !meet(c)) return;
        for (int r = 0; r < c->size; r++) {
            if (c->room->seats[r].signature != c->signature) say("! nccl ranks %d and %d differ in their calls", c->rank, r);
            if (call->type == FLOAT32) REDUCE(float);
            else if (call->type == FLOAT64) REDUCE(double);
            else REDUCE(int64_t);
        }
        if (!meet(c)) return;
        memcpy(call->to + begin * width, sum, n * width);
    }
    say("nccl AllReduce rank=%d count=%zu type=%d op=%d", c->rank, call->count, call->type, call->op);
}

static void all(void *first)
{
    for (struct call *call = first; call; call = call->next) all_reduce(call);
}

static _Thread_local int depth;
static _Thread_local struct call *first;
static _Thread_local void *stream_;

int ncclGroupStart(void) { depth++; return OK; }
int ncclGroupEnd(void)
{
    if (!depth) { say("! nccl GroupEnd without a GroupStart"); return INVALID_USAGE; }
    if (--depth || !first) return OK;
    struct call *calls = first;
    first = NULL;
    say("nccl enqueue rank=%d captured=%d", calls->comm->rank,
        ((int (*)(void *))driver("stub_capturing"))(stream_));
    int bad = ((int (*)(void *, void (*)(void *), void *))driver("stub_enqueue"))(stream_, all, calls);
    return bad ? 1 : OK;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *c, void *stream)
{
    int (*memory)(uint64_t, size_t) = (int (*)(uint64_t, size_t))driver("stub_device_memory");
    if (device() != c->device) { say("! nccl AllReduce of device %d's communicator on device %d", c->device, device()); return INVALID_USAGE; }
    if (atomic_load(&c->aborted)) { say("! nccl AllReduce of an aborted communicator"); return INVALID_USAGE; }
    if (type != INT64 && type != FLOAT32 && type != FLOAT64) return INVALID_ARGUMENT;
    if (op != SUM && op != MAX && op != AVG) return INVALID_ARGUMENT;
    if (memory((uint64_t)from, count * item(type)) != c->device || memory((uint64_t)to, count * item(type)) != c->device) {
        say("! nccl AllReduce of memory that is not the device's");
        return INVALID_ARGUMENT;
    }
    struct call *call = calloc(1, sizeof *call), **last = &first;
    *call = (struct call){ c, from, to, count, type, op, NULL };
    while (*last) last = &(*last)->next;
    *last = call;
    if (depth && first != call && stream != stream_) { say("! nccl a group on two streams"); return INVALID_USAGE; }
    stream_ = stream;
    if (!depth) { ncclGroupStart(); return ncclGroupEnd(); }
    return OK;
}
