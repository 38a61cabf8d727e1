/* A stand-in for NVIDIA's driver (libcuda.so.1), for machines without a GPU.

   Device memory is the host's, and no kernel is run. What the real driver checks is checked: that a
   context is current, what may be called while a stream is captured, the geometry, shared memory,
   registers and cooperative size of each launch, and that memory which is used is there. So is what a
   kernel would run into: an address of its arguments, those of a graph's included whenever that is
   launched, must be of memory that the launch's device has (what is freed is never given again). Each
   call is a line of the file that STUB_LOG names; a line that begins with "!" is a mistake of the
   caller's. What is left over is counted in the last line.

   STUB_CC=9.0 (or 7.5,9.0: device by device)  STUB_DEVICES=1  STUB_DRIVER=13000
   STUB_SHARED=232448 (bytes that a block may ask for; device by device, too)
   STUB_MEMORY=6442450944 (bytes of a device)  STUB_LOST=n (the device is lost at the n-th launch)
   STUB_CLUSTERS=7 (clusters of 16 blocks that run at once)  STUB_CONTEXT=n (none can be had: why)

   Types and numbers are those of the driver's stable interface; no header of CUDA's is needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, TOO_LARGE = 720, CAPTURE_UNSUPPORTED = 900,
};
enum { MOST_DEVICES = 8, PROCESSORS = 132, STATIC_LIMIT = 48 * 1024 };
typedef uint64_t address;

/* ---------------------------------------------------------------- log, settings */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *log_file;

static void say(const char *format, ...)
{
    pthread_mutex_lock(&lock);
    if (!log_file) {
        const char *path = getenv("STUB_LOG");
        log_file = fopen(path ? path : "/dev/null", "a");
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(log_file, format, arguments);
    va_end(arguments);
    fputc('\n', log_file);
    fflush(log_file);
    pthread_mutex_unlock(&lock);
}

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* the device's part of a setting like "7.5,9.0"; the last one is for all that follow */
static const char *part(const char *name, const char *otherwise, int device)
{
    const char *text = getenv(name), *next;
    if (!text) return otherwise;
    while (device-- > 0 && (next = strchr(text, ','))) text = next + 1;
    return text;
}
static int capability(int device) { return atoi(part("STUB_CC", "9.0", device)); }
static long most_shared(int device) { return atol(part("STUB_SHARED", "232448", device)); }

static int initialized, lost;
static long launches;

/* ---------------------------------------------------------------- contexts: one for each device */

struct context { int device; };
static struct context contexts[MOST_DEVICES];
static __thread struct context *stack[16];
static __thread int depth;  /* contexts on this thread's stack */

static struct context *current(void) { return depth ? stack[depth - 1] : NULL; }

static int ready(const char *call)
{
    if (!initialized) { say("! %s before cuInit", call); return NOT_INITIALIZED; }
    if (!current()) { say("! %s without a context", call); return INVALID_CONTEXT; }
    return lost ? LAUNCH_FAILED : OK;
}
#define READY do { int bad_ = ready(__func__); if (bad_) return bad_; } while (0)

int cuInit(unsigned flags) { initialized = 1; say("cuInit"); return OK; }
int cuDriverGetVersion(int *version) { *version = setting("STUB_DRIVER", 13000); return OK; }

int cuDeviceGetCount(int *count)
{
    *count = setting("STUB_DEVICES", 1);
    return initialized ? OK : NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int number)
{
    *device = number;
    return number < setting("STUB_DEVICES", 1) ? OK : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, size, "stand-in %d", device);
    return OK;
}

int cuDeviceGetUuid_v2(void *uuid, int device) { memset(uuid, device + 1, 16); return OK; }

int cuDeviceTotalMem_v2(size_t *size, int device)
{
    *size = setting("STUB_MEMORY", 6l << 30);
    return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    int major = 9, minor = 0;
    sscanf(part("STUB_CC", "9.0", device), "%d.%d", &major, &minor);
    switch (attribute) {
    case 1: *value = 1024; break;                           /* threads of a block */
    case 8: *value = STATIC_LIMIT; break;                   /* shared memory without asking */
    case 16: *value = PROCESSORS; break;
    case 75: *value = major; break;
    case 76: *value = minor; break;
    case 97: *value = most_shared(device); break;
    default: *value = 1;                                    /* "is it supported?" */
    }
    return initialized ? OK : NOT_INITIALIZED;
}

int cuDevicePrimaryCtxRetain(struct context **context, int device)
{
    long refused = setting("STUB_CONTEXT", OK);
    if (refused) return refused;
    contexts[device].device = device;
    *context = &contexts[device];
    say("PrimaryCtxRetain device=%d", device);
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int device) { say("PrimaryCtxRelease device=%d", device); return OK; }
int cuCtxGetCurrent(struct context **context) { *context = current(); return OK; }

int cuCtxSetCurrent(struct context *context)
{
    if (!context) { depth = depth ? depth - 1 : 0; return OK; }
    if (!depth) depth = 1;
    stack[depth - 1] = context;
    return OK;
}

int cuCtxPushCurrent_v2(struct context *context) { stack[depth++] = context; return OK; }

int cuCtxPopCurrent_v2(struct context **context)
{
    if (!depth) return INVALID_CONTEXT;
    depth--;
    if (context) *context = stack[depth];
    return OK;
}

int cuCtxGetDevice(int *device) { READY; *device = current()->device; return OK; }
int cuCtxGetDevice_v2(int *device, struct context *context)
{
    if (!context) context = current();
    if (!context) return INVALID_CONTEXT;
    *device = context->device;
    return OK;
}
int cuCtxGetId(struct context *context, unsigned long long *id)
{
    *id = 1 + (context ? context : current())->device;
    return OK;
}
int cuCtxSynchronize(void) { READY; say("CtxSynchronize"); return OK; }
int cuCtxSynchronize_v2(struct context *context) { say("CtxSynchronize"); return lost ? LAUNCH_FAILED : OK; }
int cuCtxGetStreamPriorityRange(int *low, int *high) { READY; *low = 0; *high = -5; return OK; }

/* ---------------------------------------------------------------- streams, events, captures */

/* A stream in capture has a `tip`, the nodes that what comes next waits for: bits of the graph's nodes.
   An event that was recorded there holds its tip; a stream that waits for it joins the capture. */
#define MOST_NODES 4096
typedef struct { uint64_t bits[MOST_NODES / 64]; } nodes;
struct act { void (*run)(void *); void *argument; struct act *next; };  /* what other libraries do, in a graph's order */
struct used { address at; int node; struct used *next; };  /* an address that a node has among its arguments */
struct graph { int nodes, cooperative, edges, forked, device; nodes tips;  /* `tips`: nodes that no other waits for */ struct act *acts; struct used *used; };
struct stream { struct context *context; unsigned flags; int capturing; struct graph *graph; nodes tip; struct stream *origin; };
struct event { struct context *context; unsigned flags; struct graph *graph; struct stream *origin; nodes tip; };
static long streams, events, graphs;

static void merge(nodes *into, const nodes *other)
{
    for (int i = 0; i < MOST_NODES / 64; i++) into->bits[i] |= other->bits[i];
}
static int has(const nodes *set, int n) { return set->bits[n / 64] >> n % 64 & 1; }

static int real(struct stream *stream) { return (uintptr_t)stream > 16; }
static int capturing(struct stream *stream)
{
    if (real(stream) && stream->capturing && !stream->origin->capturing) stream->capturing = 0;
    return real(stream) && stream->capturing;
}

static int mine(struct stream *stream, const char *call)
{
    if (real(stream) && stream->context != current()) {
        say("! %s on a stream of another device", call);
        return INVALID_CONTEXT;
    }
    return OK;
}

/* What is launched in capture becomes a node that waits for the stream's tip, and is its tip then. */
static void node(struct stream *stream)
{
    struct graph *graph = stream->graph;
    int n = graph->nodes++, count = 0;
    char waits[1024] = "";
    if (n >= MOST_NODES) return;
    for (int j = 0; j < n; j++)
        if (has(&stream->tip, j)) {
            graph->tips.bits[j / 64] &= ~(1ull << j % 64);
            graph->edges++;
            if (count++ < 64) snprintf(waits + strlen(waits), sizeof waits - strlen(waits), "%s%d", count > 1 ? "," : "", j);
        }
    stream->tip = (nodes){ 0 };
    stream->tip.bits[n / 64] |= 1ull << n % 64;
    graph->tips.bits[n / 64] |= 1ull << n % 64;
    say("Node %d after %s", n, count ? waits : "-");
}

static struct block *block_of(address at, size_t size);
static int usable(address at, int device);

/* For stand-ins of libraries that work on streams: their work as a node, done when the graph is launched; or
   done now. */
int stub_enqueue(struct stream *stream, void (*run)(void *), void *argument)
{
    int bad = ready("a library's work") | mine(stream, "a library's work");
    if (bad) return bad;
    if (!capturing(stream)) { run(argument); return OK; }
    node(stream);
    struct act **last = &stream->graph->acts;
    while (*last) last = &(*last)->next;
    *last = calloc(1, sizeof **last);
    **last = (struct act){ run, argument, NULL };
    return OK;
}
int stub_device(void) { return current() ? current()->device : -1; }
int stub_capturing(struct stream *stream) { return capturing(stream); }
int stub_device_memory(address at, size_t size);
void stub_say(const char *text) { say("%s", text); }

int cuStreamCreateWithPriority(struct stream **stream, unsigned flags, int priority)
{
    READY;
    *stream = calloc(1, sizeof **stream);
    (*stream)->context = current();
    (*stream)->flags = flags;
    streams++;
    say("StreamCreate %p device=%d", (void *)*stream, current()->device);
    return OK;
}
int cuStreamCreate(struct stream **stream, unsigned flags)
{
    return cuStreamCreateWithPriority(stream, flags, 0);
}
int cuStreamDestroy_v2(struct stream *stream) { streams--; say("StreamDestroy %p", (void *)stream); return OK; }
int cuStreamGetCtx(struct stream *s, struct context **context)
{
    *context = real(s) ? s->context : current();
    return OK;
}
int cuStreamGetCtx_v2(struct stream *s, struct context **context, void **green)
{
    if (green) *green = NULL;
    return cuStreamGetCtx(s, context);
}
int cuStreamGetDevice(struct stream *s, int *device)
{
    *device = real(s) ? s->context->device : current()->device;
    return OK;
}
int cuStreamGetFlags(struct stream *s, unsigned *flags) { *flags = real(s) ? s->flags : 0; return OK; }
int cuStreamGetPriority(struct stream *s, int *priority) { *priority = 0; return OK; }

int cuStreamSynchronize(struct stream *stream)
{
    READY;
    if (capturing(stream)) {
        say("! StreamSynchronize of a stream in capture");
        return CAPTURE_UNSUPPORTED;
    }
    say("StreamSynchronize %p", (void *)stream);
    return OK;
}

int cuStreamQuery(struct stream *stream) { READY; return OK; }

int cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags)
{
    READY;
    say("StreamWaitEvent %p", (void *)stream);
    if (!event->graph) return OK;
    if (capturing(stream) && stream->graph != event->graph) {
        say("! StreamWaitEvent for an event of another capture");
        return CAPTURE_UNSUPPORTED;
    }
    if (!capturing(stream)) {
        stream->capturing = 1;
        stream->graph = event->graph;
        stream->origin = event->origin;
        stream->tip = (nodes){ 0 };
        stream->graph->forked++;
    }
    merge(&stream->tip, &event->tip);
    return OK;
}

int cuEventCreate(struct event **event, unsigned flags)
{
    READY;
    *event = calloc(1, sizeof **event);
    (*event)->flags = flags;
    (*event)->context = current();
    events++;
    say("EventCreate flags=%u", flags);
    return OK;
}
int cuEventRecord(struct event *event, struct stream *stream)
{
    READY;
    int bad = mine(stream, "EventRecord");
    if (event->context != current()) { say("! EventRecord of another device's event"); return INVALID_HANDLE; }
    say("EventRecord %p", (void *)stream);
    event->graph = capturing(stream) ? stream->graph : NULL;
    if (event->graph) {
        event->origin = stream->origin;
        event->tip = stream->tip;
    }
    return bad;
}
int cuEventRecordWithFlags(struct event *event, struct stream *stream, unsigned flags)
{
    return cuEventRecord(event, stream);
}
int cuEventSynchronize(struct event *event)
{
    if (event->graph && event->origin->capturing) { say("! EventSynchronize of an event in capture"); return CAPTURE_UNSUPPORTED; }
    say("EventSynchronize");
    return lost ? LAUNCH_FAILED : OK;
}
int cuEventQuery(struct event *event) { return lost ? LAUNCH_FAILED : OK; }
int cuEventDestroy_v2(struct event *event) { events--; free(event); return OK; }

/* cuda.h calls it _v2, and the plain name in older ones */
int elapsed(float *ms, struct event *a, struct event *b)
{
    if ((a->flags | b->flags) & 2) { say("! EventElapsedTime of events without times"); return INVALID_HANDLE; }
    *ms = 1;
    return OK;
}
int cuEventElapsedTime(float *, struct event *, struct event *) __attribute__((alias("elapsed")));
int cuEventElapsedTime_v2(float *, struct event *, struct event *) __attribute__((alias("elapsed")));

int cuStreamBeginCapture_v2(struct stream *stream, int mode)
{
    READY;
    stream->capturing = 1;
    stream->graph = calloc(1, sizeof *stream->graph);
    stream->graph->device = current()->device;
    stream->origin = stream;
    stream->tip = (nodes){ 0 };
    graphs++;
    say("BeginCapture %p", (void *)stream);
    return OK;
}
int cuStreamEndCapture(struct stream *stream, struct graph **graph)
{
    READY;
    struct graph *made = stream->graph;
    if (stream->origin != stream) {
        say("! EndCapture of a stream that did not begin it");
        return CAPTURE_UNSUPPORTED;
    }
    for (int n = 0; n < made->nodes && n < MOST_NODES; n++)  /* a node that nobody waits for, and the origin neither */
        if (has(&made->tips, n) && !has(&stream->tip, n)) {
            say("! EndCapture before node %d has joined", n);
            return CAPTURE_UNSUPPORTED;
        }
    stream->capturing = 0;
    if (graph) *graph = made;
    say("EndCapture %p nodes=%d cooperative=%d edges=%d forked=%d", (void *)stream, made->nodes, made->cooperative, made->edges, made->forked);
    return OK;
}
int cuStreamIsCapturing(struct stream *stream, int *status) { *status = capturing(stream); return OK; }

int cuStreamGetCaptureInfo_v2(struct stream *stream, int *status, uint64_t *id, struct graph **graph, const void **nodes, size_t *count)
{
    *status = capturing(stream);
    if (id) *id = 1;
    if (graph) *graph = real(stream) ? stream->graph : NULL;
    if (nodes) *nodes = NULL;
    if (count) *count = 0;
    return OK;
}
int cuStreamGetCaptureInfo_v3(struct stream *stream, int *status, uint64_t *id, struct graph **graph, const void **nodes, const void **edges, size_t *count)
{
    if (edges) *edges = NULL;
    return cuStreamGetCaptureInfo_v2(stream, status, id, graph, nodes, count);
}

struct instantiate { uint64_t flags; struct stream *upload; void *node; int result; };
int cuGraphInstantiateWithParams(struct graph **executable, struct graph *graph, struct instantiate *parameters)
{
    READY;
    *executable = calloc(1, sizeof **executable);
    **executable = *graph;
    graphs++;
    parameters->result = 0;
    say("GraphInstantiate nodes=%d", graph->nodes);
    return OK;
}
int cuGraphUpload(struct graph *graph, struct stream *stream) { READY; say("GraphUpload %p", (void *)stream); return mine(stream, "GraphUpload"); }
int cuGraphLaunch(struct graph *graph, struct stream *stream)
{
    READY;
    say("GraphLaunch %p nodes=%d", (void *)stream, graph->nodes);
    for (struct used *u = graph->used; u; u = u->next)
        if (!usable(u->at, graph->device)) { say("! GraphLaunch: node %d has %p, no memory of the device", u->node, (void *)u->at); return ILLEGAL_ADDRESS; }
    long limit = setting("STUB_LOST", 0);
    if (limit && (launches += graph->nodes) >= limit) lost = 1;
    for (struct act *act = graph->acts; act && !lost; act = act->next) act->run(act->argument);
    return lost ? LAUNCH_FAILED : mine(stream, "GraphLaunch");
}
int cuGraphDestroy(struct graph *graph) { graphs--; say("GraphDestroy"); return OK; }
int cuGraphExecDestroy(struct graph *graph) { graphs--; say("GraphExecDestroy"); return OK; }
int cuUserObjectCreate(void **object, void *pointer, void *destroy, unsigned count, unsigned flags) { *object = pointer; return OK; }
int cuUserObjectRelease(void *object, unsigned count) { return OK; }
int cuGraphRetainUserObject(struct graph *graph, void *object, unsigned count, unsigned flags) { return OK; }
int cuGraphReleaseUserObject(struct graph *graph, void *object, unsigned count) { return OK; }
int cuThreadExchangeStreamCaptureMode(int *mode) { return OK; }

/* ---------------------------------------------------------------- memory */

struct block { address begin; size_t size; int device, host; struct block *next; };
static struct block *blocks;  /* what is allocated */
static size_t used[MOST_DEVICES], cached[MOST_DEVICES];
/* addresses of all blocks, each given once: what points to freed memory is seen, and the host fails there */
enum { PAGE = 4096 };
static const address FIRST = 0x100000000000, LAST = 0x180000000000;
static address free_address = 0x100000000000;

static struct block *block_of(address at, size_t size)
{
    for (struct block *b = blocks; b; b = b->next)
        if (b->begin <= at && at + size <= b->begin + b->size) return b;
    return NULL;
}

/* whether kernels on a device may use what is at an address; numbers that are no address of a block's may be all */
static int usable(address at, int device)
{
    if (at < FIRST || at >= LAST) return 1;
    struct block *b = block_of(at, 0);
    return b && (b->host || b->device == device);
}

/* the number of the device that has this memory; -1 if none */
int stub_device_memory(address at, size_t size)
{
    struct block *b = block_of(at, size);
    return b && !b->host ? b->device : -1;
}

static int take(address *result, size_t size, struct stream *stream, const char *call)
{
    if (capturing(stream)) { say("! %s in capture", call); return CAPTURE_UNSUPPORTED; }
    int bad = mine(stream, call), device = current()->device;
    if (bad) return bad;
    if (!size) { say("! %s of nothing", call); return INVALID_VALUE; }
    if (used[device] + cached[device] + size > (size_t)setting("STUB_MEMORY", 6l << 30)) {
        say("%s size=%zu refused", call, size);
        return OUT_OF_MEMORY;
    }
    struct block *b = calloc(1, sizeof *b);
    b->size = size;
    b->device = device;
    pthread_mutex_lock(&lock);
    b->begin = free_address;
    free_address += (size + 2 * PAGE - 1) / PAGE * PAGE;
    void *made = mmap((void *)b->begin, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (made != (void *)b->begin) abort();
    memset(made, 0xA5, size);
    b->next = blocks;
    blocks = b;
    used[device] += size;
    pthread_mutex_unlock(&lock);
    *result = b->begin;
    say("%s size=%zu device=%d -> %p", call, size, device, (void *)b->begin);
    return OK;
}

/* `pooled`: what is freed stays with the device's pool until it is trimmed */
static int give(address at, int pooled, const char *call)
{
    pthread_mutex_lock(&lock);
    struct block **link = &blocks;
    while (*link && (*link)->begin != at) link = &(*link)->next;
    struct block *b = *link;
    if (b) {
        *link = b->next;
        if (!b->host) {
            used[b->device] -= b->size;
            if (pooled) cached[b->device] += b->size;
        }
    }
    pthread_mutex_unlock(&lock);
    if (!b) { say("! %s of what is not allocated: %p", call, (void *)at); return INVALID_VALUE; }
    say("%s %p", call, (void *)at);
    munmap((void *)b->begin, b->size);
    free(b);
    return OK;
}

int cuMemAllocAsync(address *p, size_t size, struct stream *s) { READY; return take(p, size, s, "MemAllocAsync"); }
int cuMemAllocFromPoolAsync(address *p, size_t size, void *pool, struct stream *s) { READY; return take(p, size, s, "MemAllocFromPoolAsync"); }
int cuMemAlloc_v2(address *p, size_t size) { READY; return take(p, size, NULL, "MemAlloc"); }
int cuMemFreeAsync(address p, struct stream *s)
{
    if (capturing(s)) { say("! MemFreeAsync in capture"); return CAPTURE_UNSUPPORTED; }
    return give(p, 1, "MemFreeAsync");
}
int cuMemFree_v2(address p) { return give(p, 0, "MemFree"); }

int cuMemHostAlloc(void **p, size_t size, unsigned flags)
{
    READY;
    address at;
    size_t before = used[current()->device];
    int bad = take(&at, size, NULL, "MemHostAlloc");
    if (bad) return bad;
    used[current()->device] = before;
    block_of(at, size)->host = 1;
    *p = (void *)at;
    return OK;
}
int cuMemFreeHost(void *p)
{
    if (!current()) { say("! MemFreeHost without a context"); return INVALID_CONTEXT; }
    return give((address)p, 0, "MemFreeHost");
}

int cuMemGetInfo_v2(size_t *left, size_t *total)
{
    READY;
    *total = setting("STUB_MEMORY", 6l << 30);
    *left = *total - used[current()->device] - cached[current()->device];
    return OK;
}

/* pools: the device's number plus one stands for its pool */
int cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = (void *)(uintptr_t)(device + 1); return OK; }
int cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
struct location { int type, device; };
int cuMemGetDefaultMemPool(void **pool, struct location *where, int type) { return cuDeviceGetDefaultMemPool(pool, where->device); }
int cuMemGetMemPool(void **pool, struct location *where, int type) { return cuDeviceGetDefaultMemPool(pool, where->device); }
int cuMemPoolSetAttribute(void *pool, int attribute, void *value) { say("MemPoolSetAttribute %d", attribute); return OK; }
int cuMemPoolGetAttribute(void *pool, int attribute, void *value) { *(uint64_t *)value = 0; return OK; }
int cuMemPoolSetAccess(void *pool, const void *what, size_t count) { return OK; }
int cuMemPoolGetAccess(int *flags, void *pool, void *where) { *flags = 3; return OK; }
int cuMemPoolTrimTo(void *pool, size_t keep)
{
    int device = (int)(uintptr_t)pool - 1;
    say("MemPoolTrimTo device=%d keep=%zu freed=%zu", device, keep, cached[device]);
    cached[device] = 0;
    return OK;
}

/* `device`: what has to be memory of a device; `host` memory that is no block may be pageable */
static int there(address at, size_t size, const char *call)
{
    if (block_of(at, size)) return OK;
    say("! %s touches %zu bytes at %p that are not allocated", call, size, (void *)at);
    return ILLEGAL_ADDRESS;
}

static int copied(address to, address from, size_t size, struct stream *s, const char *call)
{
    int bad = mine(s, call);
    if (bad) return bad;
    struct block *source = block_of(from, size);
    if (capturing(s) && !(source && block_of(to, size))) {
        say("! %s of pageable memory in capture", call);
        return CAPTURE_UNSUPPORTED;
    }
    memcpy((void *)to, (void *)from, size);
    say("%s size=%zu stream=%p pinned=%d", call, size, (void *)s,
        (source && source->host) || (block_of(to, size) && block_of(to, size)->host));
    return OK;
}

int cuMemcpyHtoDAsync_v2(address to, void *from, size_t size, struct stream *s)
{
    READY;
    int bad = there(to, size, "HtoD");
    return bad ? bad : copied(to, (address)from, size, s, "HtoD");
}
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t size, struct stream *s)
{
    READY;
    int bad = there(from, size, "DtoH");
    return bad ? bad : copied((address)to, from, size, s, "DtoH");
}
int cuMemcpyDtoDAsync_v2(address to, address from, size_t size, struct stream *s)
{
    READY;
    int bad = there(to, size, "DtoD") | there(from, size, "DtoD");
    return bad ? bad : copied(to, from, size, s, "DtoD");
}
int cuMemcpyAsync(address to, address from, size_t size, struct stream *s) { READY; return copied(to, from, size, s, "Memcpy"); }

int cuMemsetD8Async(address to, unsigned char value, size_t count, struct stream *s)
{
    READY;
    int bad = there(to, count, "Memset") | mine(s, "Memset");
    if (bad) return bad;
    memset((void *)to, value, count);
    say("Memset size=%zu", count);
    return OK;
}
int cuMemsetD32Async(address to, unsigned value, size_t count, struct stream *s)
{
    READY;
    int bad = there(to, 4 * count, "Memset") | mine(s, "Memset");
    if (bad) return bad;
    for (size_t k = 0; k < count; k++) ((unsigned *)to)[k] = value;
    say("Memset size=%zu", 4 * count);
    return OK;
}

/* 2: the kind of memory (1 host, 2 device); 9: the device's number */
static void describe(int *value, int attribute, address at)
{
    struct block *b = block_of(at, 1);
    *value = attribute == 2 ? (b && !b->host ? 2 : 1) : attribute == 9 ? (b ? b->device : -1) : 0;
}
int cuPointerGetAttributes(unsigned count, int *attributes, void **values, address at)
{
    for (unsigned k = 0; k < count; k++) describe(values[k], attributes[k], at);
    return OK;
}
int cuPointerGetAttribute(void *value, int attribute, address at) { describe(value, attribute, at); return OK; }

/* ---------------------------------------------------------------- kernels */

struct kernel { int dynamic_limit, large_clusters, fixed_shared, parameters, registers, most_threads, sizes[256]; };
static long libraries;

/* static shared memory, registers, launch bounds and parameters of a cubin (an ELF file) */
static void inspect(struct kernel *k, const unsigned char *elf)
{
    const unsigned char *sections = elf + *(uint64_t *)(elf + 0x28);
    int step = *(uint16_t *)(elf + 0x3a), count = *(uint16_t *)(elf + 0x3c), last = *(uint16_t *)(elf + 0x3e);
    const char *names = (const char *)elf + *(uint64_t *)(sections + last * step + 0x18);
    for (int i = 0; i < count; i++) {
        const unsigned char *head = sections + i * step;
        const char *name = names + *(uint32_t *)head;
        const unsigned char *at = elf + *(uint64_t *)(head + 0x18), *end = at + *(uint64_t *)(head + 0x20);
        if (!strncmp(name, ".nv.shared.fastnn", 17)) k->fixed_shared = end - at;
        if (!strncmp(name, ".text.fastnn_entry", 18)) k->registers = *(uint32_t *)(head + 0x2c) >> 24;
        if (strncmp(name, ".nv.info.fastnn_entry", 21)) continue;
        while (at < end) {
            int format = at[0], what = at[1];
            if (format == 4 && what == 0x17) {  /* a parameter: its number and size */
                int number = *(uint16_t *)(at + 8);
                if (number < 256) k->sizes[number] = *(uint32_t *)(at + 12) >> 18;
                if (number + 1 > k->parameters) k->parameters = number + 1;
            }
            if (format == 4 && what == 0x05)
                k->most_threads = *(uint32_t *)(at + 4) * *(uint32_t *)(at + 8) * *(uint32_t *)(at + 12);
            at += format == 4 ? 4 + *(uint16_t *)(at + 2) : 4;
        }
    }
}

int cuLibraryLoadData(struct kernel **library, const void *code, int *a, void **b, unsigned c, int *d, void **e, unsigned f)
{
    READY;
    struct kernel *k = *library = calloc(1, sizeof *k);
    if (!memcmp(code, "\177ELF", 4)) inspect(k, code);  /* else PTX, which the driver would compile */
    if (k->fixed_shared >= 1024) k->fixed_shared -= 1024;  /* the system's own, on sm_90 */
    k->dynamic_limit = STATIC_LIMIT - k->fixed_shared;
    libraries++;
    say("LibraryLoadData static=%d parameters=%d registers=%d bounds=%d", k->fixed_shared, k->parameters, k->registers, k->most_threads);
    return OK;
}
int cuLibraryGetKernel(struct kernel **kernel, struct kernel *library, const char *name)
{
    *kernel = library;
    return strncmp(name, "fastnn_entry_", 13) ? NOT_FOUND : OK;
}
int cuLibraryUnload(struct kernel *library) { libraries--; say("LibraryUnload"); return OK; }
int cuKernelGetLibrary(struct kernel **library, struct kernel *kernel) { *library = kernel; return OK; }
int cuKernelGetFunction(struct kernel **function, struct kernel *kernel) { *function = kernel; return OK; }

int cuKernelSetAttribute(int attribute, int value, struct kernel *k, int device)
{
    say("KernelSetAttribute %d=%d", attribute, value);
    if (attribute == 8) {
        if (value + k->fixed_shared > most_shared(device)) {
            say("! %d bytes of shared memory asked for, more than a block may have", value + k->fixed_shared);
            return INVALID_VALUE;
        }
        k->dynamic_limit = value;
    }
    if (attribute == 14) k->large_clusters = value;
    return OK;
}
int cuKernelGetAttribute(int *value, int attribute, struct kernel *k, int device)
{
    int found[] = {k->most_threads ? k->most_threads : 1024, k->fixed_shared, 0, 0, k->registers, 90, 90, 0, k->dynamic_limit};
    *value = attribute <= 8 ? found[attribute] : 0;
    return OK;
}
int cuFuncGetAttribute(int *value, int attribute, struct kernel *k) { return cuKernelGetAttribute(value, attribute, k, 0); }

static int registers_of(struct kernel *k, int threads) { return (k->registers + 7) / 8 * 8 * ((threads + 31) / 32 * 32); }

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks_, struct kernel *k, int threads, size_t shared)
{
    READY;
    int by_registers = k->registers ? 65536 / registers_of(k, threads) : 32;
    int by_shared = (most_shared(current()->device) + 1024) / ((int)shared + k->fixed_shared + 1024);
    int by_threads = 2048 / threads;
    *blocks_ = by_registers < by_shared ? by_registers : by_shared;
    if (by_threads < *blocks_) *blocks_ = by_threads;
    if ((long)shared > k->dynamic_limit) *blocks_ = 0;
    return OK;
}

struct attribute { int id, padding, value[16]; };
struct launch;
static int cluster_of(const struct launch *l);

int cuOccupancyMaxActiveClusters(int *count, struct kernel *k, const struct launch *l)
{
    READY;
    int blocks_ = cluster_of(l);
    say("OccupancyMaxActiveClusters of %d blocks", blocks_);
    if (blocks_ > (k->large_clusters ? 16 : 8)) { *count = 0; return INVALID_VALUE; }
    *count = blocks_ > 8 ? setting("STUB_CLUSTERS", 7) : PROCESSORS / blocks_;
    return OK;
}

struct launch { unsigned grid[3], block[3], shared; struct stream *stream; struct attribute *attributes; unsigned count; };

static int cluster_of(const struct launch *l)
{
    int cluster = 1;
    for (unsigned i = 0; i < l->count; i++)
        if (l->attributes[i].id == 4) cluster = l->attributes[i].value[0] * l->attributes[i].value[1] * l->attributes[i].value[2];
    return cluster;
}

int cuLaunchKernelEx(const struct launch *l, struct kernel *k, void **parameters, void **extra)
{
    READY;
    int cooperative = 0, cluster = cluster_of(l), bad = mine(l->stream, "Launch");
    if (bad) return bad;
    for (unsigned i = 0; i < l->count; i++)
        if (l->attributes[i].id == 2) cooperative = l->attributes[i].value[0];
    unsigned threads = l->block[0] * l->block[1] * l->block[2];
    unsigned long grid = (unsigned long)l->grid[0] * l->grid[1] * l->grid[2];
    say("Launch grid=%u,%u,%u block=%u,%u,%u shared=%u static=%d cooperative=%d cluster=%d captured=%d", l->grid[0], l->grid[1],
        l->grid[2], l->block[0], l->block[1], l->block[2], l->shared, k->fixed_shared, cooperative, cluster, capturing(l->stream));
    if ((int)l->shared > k->dynamic_limit) {
        say("! Launch with %u bytes of dynamic shared memory, the kernel's limit is %d (static %d)", l->shared, k->dynamic_limit, k->fixed_shared);
        return INVALID_VALUE;
    }
    if (!grid || !threads || threads > 1024 || l->block[2] > 64 || l->grid[0] > 0x7fffffff || l->grid[1] > 65535 || l->grid[2] > 65535) {
        say("! Launch of an impossible size");
        return INVALID_VALUE;
    }
    if (k->most_threads && threads > (unsigned)k->most_threads) { say("! Launch beyond its bounds"); return INVALID_VALUE; }
    if (registers_of(k, threads) > 65536) { say("! Launch with too many registers"); return OUT_OF_RESOURCES; }
    if (cluster > 1) {  /* 8 blocks are what every device takes that has clusters, 16 those of 9.0 that are asked */
        if (capability(current()->device) < 9) { say("! Launch of clusters on an older device"); return INVALID_VALUE; }
        if (cluster > (k->large_clusters && setting("STUB_CLUSTERS", 7) ? 16 : 8) || l->grid[0] % cluster) { say("! Launch of impossible clusters"); return INVALID_VALUE; }
    }
    if (cooperative) {
        int fit;
        cuOccupancyMaxActiveBlocksPerMultiprocessor(&fit, k, threads, l->shared);
        if (grid > (unsigned long)fit * PROCESSORS) { say("! Launch of more blocks than run at once"); return TOO_LARGE; }
    }
    volatile unsigned char sum = 0;  /* every parameter can be read */
    for (int i = 0; i < k->parameters; i++)
        for (int j = 0; j < k->sizes[i]; j++) sum += ((unsigned char *)parameters[i])[j];
    struct graph *graph = capturing(l->stream) ? l->stream->graph : NULL;
    for (int i = 0; i < k->parameters; i++) {
        address at = k->sizes[i] == sizeof at ? *(address *)parameters[i] : 0;
        if (!usable(at, current()->device)) { say("! Launch with %p, no memory of the device", (void *)at); return ILLEGAL_ADDRESS; }
        if (!graph || at < FIRST || at >= LAST) continue;
        struct used *u = calloc(1, sizeof *u);
        *u = (struct used){ at, graph->nodes, graph->used };
        graph->used = u;
    }
    if (graph) {
        node(l->stream);
        l->stream->graph->cooperative += cooperative;
        return OK;
    }
    long limit = setting("STUB_LOST", 0);
    if (limit && ++launches >= limit) lost = 1;
    return lost ? LAUNCH_FAILED : OK;
}

int cuLaunchKernel(struct kernel *k, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, struct stream *stream, void **parameters, void **extra)
{
    struct launch l = {{gx, gy, gz}, {bx, by, bz}, shared, stream, NULL, 0};
    return cuLaunchKernelEx(&l, k, parameters, extra);
}

/* ---------------------------------------------------------------- names */

int cuGetErrorName(int error, const char **name)
{
    static const struct { int number; const char *name; } known[] = {
        {OK, "CUDA_SUCCESS"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"}, {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"}, {TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}, {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    };
    *name = "CUDA_ERROR_UNKNOWN";
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (known[k].number == error) *name = known[k].name;
    return OK;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status)
{
    static void *self;
    if (!self) {
        Dl_info info;
        dladdr((void *)cuInit, &info);
        self = dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_NOW);
    }
    const char *newer = "";  /* which of several forms this version of CUDA means */
    if (!strcmp(name, "cuStreamGetCaptureInfo")) newer = version >= 12030 ? "_v3" : "_v2";
    if (!strcmp(name, "cuStreamGetCtx")) newer = version >= 12050 ? "_v2" : "";
    if (!strcmp(name, "cuCtxSynchronize") || !strcmp(name, "cuCtxGetDevice")) newer = version >= 13000 ? "_v2" : "";
    int fixed = !strcmp(name, "cuStreamGetCtx") || !strcmp(name, "cuCtxSynchronize") || !strcmp(name, "cuCtxGetDevice");
    const char *suffixes[] = {newer, fixed ? newer : "_v3", fixed ? newer : "_v2", fixed ? newer : ""};
    *found = NULL;
    for (int k = *newer || fixed ? 0 : 1; k < 4 && !*found; k++) {
        char full[128];
        snprintf(full, sizeof full, "%s%s", name, suffixes[k]);
        *found = dlsym(self, full);
    }
    if (status) *status = *found ? 0 : 1;
    return OK;
}

__attribute__((destructor)) static void left_over(void)
{
    size_t bytes = 0;
    long count = 0;
    for (struct block *b = blocks; b; b = b->next) { bytes += b->size; count++; }
    if (log_file) say("exit blocks=%ld bytes=%zu streams=%ld events=%ld graphs=%ld libraries=%ld", count, bytes, streams, events, graphs, libraries);
}
