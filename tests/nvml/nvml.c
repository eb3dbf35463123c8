/* Stands in for NVIDIA's management library (libnvidia-ml.so.1), driven by a script.
 *
 * It has the C interface of the calls that Assay makes through nvidia-ml-py: names, return codes and struct layouts
 * are those of nvml.h. The file that ASSAY_NVML_SCENARIO names says what it tells, one directive a line:
 *
 *   gpu UUID KEY=VALUE …     one more GPU with its first values
 *   mig UUID of UUID         one more handle: a part of that GPU
 *   at T [UUID] KEY=VALUE …  from time T on, for one GPU or all of them
 *   clock FUNCTION           T counts calls of that function; without it, seconds since the first nvmlInit
 *   origin SECONDS           T is CLOCK_MONOTONIC minus this: one time line for several processes
 *
 * Keys: utilization, memory_utilization (%), memory, memory_total (MiB), temperature, memory_temperature (°C), sm,
 * mem (MHz), power, limit (mW), reasons (bits), fan (%), pcie_tx, pcie_rx (KB/s), replays, ecc, ecc_corrected (counts),
 * mig (0, 1), lost (0, 1), energy_start (mJ), energy_wrap (mJ, 0: never), energy_scale (of what power adds up to; 0: stands
 * still), processes=PID:MiB,… where PID may be `parent`, `self` or `none`, fail.FUNCTION=CODE and hang.FUNCTION=SECONDS.
 *
 * Built with -DOLD_DRIVER it lacks the calls that came with later drivers, as an old library does.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { MAX_GPUS = 16, MAX_STATES = 512, MAX_KEYS = 64, NAME = 96 };
enum { FIELD_MEMORY_TEMPERATURE = 82, TYPE_UINT = 1 };

typedef struct { char key[NAME]; double value; char text[256]; } Setting;
typedef struct { char uuid[NAME]; int parent; int count; Setting settings[MAX_KEYS]; } Gpu;
typedef struct { double time; int gpu; int count; Setting settings[16]; } State;
typedef Gpu *Device;

typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute; } Process;
typedef union { double d; unsigned int ui; unsigned long ul; unsigned long long ull; long long sll; } Value;
typedef struct {
    unsigned int id, scope; long long timestamp, latency; unsigned int type, result; Value value;
} Field;

static Gpu gpus[MAX_GPUS];
static State states[MAX_STATES];
static int gpu_count, state_count, initialized;
static char clock_function[NAME];
static double origin, calls;

static double monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double script_time(void) { return clock_function[0] ? calls : monotonic() - origin; }

static void keep(Setting *settings, int *count, int room, const char *word) {
    const char *equals = strchr(word, '=');
    if (equals == NULL || *count >= room) { fprintf(stderr, "scenario: '%s'\n", word); exit(70); }
    Setting *one = &settings[(*count)++];
    snprintf(one->key, NAME, "%.*s", (int)(equals - word), word);
    snprintf(one->text, sizeof one->text, "%s", equals + 1);
    one->value = strtod(equals + 1, NULL);
}

static int index_of(const char *uuid) {
    for (int i = 0; i < gpu_count; i++) if (strcmp(gpus[i].uuid, uuid) == 0) return i;
    return -1;
}

static void read_gpu(char *words, int part) {
    Gpu *gpu = &gpus[gpu_count];
    char *rest = words, *word = strtok_r(rest, " \n", &rest);
    snprintf(gpu->uuid, NAME, "%s", word);
    gpu->parent = -1;
    if (part) {
        strtok_r(rest, " \n", &rest);
        gpu->parent = index_of(strtok_r(rest, " \n", &rest));
    }
    while ((word = strtok_r(rest, " \n", &rest))) keep(gpu->settings, &gpu->count, MAX_KEYS, word);
    gpu_count++;
}

static void read_state(char *words) {
    State *state = &states[state_count++];
    char *rest = words, *word = strtok_r(rest, " \n", &rest);
    state->time = strtod(word, NULL);
    state->gpu = -1;
    while ((word = strtok_r(rest, " \n", &rest))) {
        if (strchr(word, '=') == NULL) state->gpu = index_of(word);
        else keep(state->settings, &state->count, 16, word);
    }
}

static int read_scenario(void) {
    const char *path = getenv("ASSAY_NVML_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL) return UNKNOWN;
    char line[2048];
    origin = monotonic();
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "gpu ", 4) == 0) read_gpu(line + 4, 0);
        else if (strncmp(line, "mig ", 4) == 0) read_gpu(line + 4, 1);
        else if (strncmp(line, "at ", 3) == 0) read_state(line + 3);
        else if (strncmp(line, "clock ", 6) == 0) sscanf(line + 6, "%95s", clock_function);
        else if (strncmp(line, "origin ", 7) == 0) origin = strtod(line + 7, NULL);
    }
    fclose(file);
    return SUCCESS;
}

/* The setting at a time: the last state that names it, else the GPU's first value. */
static Setting *setting_at(Device gpu, const char *key, double time) {
    int self = (int)(gpu - gpus);
    for (int s = state_count - 1; s >= 0; s--) {
        if (states[s].time > time || (states[s].gpu >= 0 && states[s].gpu != self)) continue;
        for (int i = 0; i < states[s].count; i++)
            if (strcmp(states[s].settings[i].key, key) == 0) return &states[s].settings[i];
    }
    for (int i = 0; i < gpu->count; i++) if (strcmp(gpu->settings[i].key, key) == 0) return &gpu->settings[i];
    return NULL;
}

static Setting *setting(Device gpu, const char *key) { return setting_at(gpu, key, script_time()); }

/* What every call on a device does first. */
static int enter(Device gpu, const char *function) {
    char key[NAME];
    if (!initialized) return UNINITIALIZED;
    if (gpu < gpus || gpu >= gpus + gpu_count) return INVALID_ARGUMENT;
    if (strcmp(function, clock_function) == 0) calls++;
    snprintf(key, NAME, "hang.%s", function);
    Setting *found = setting(gpu, key);
    if (found && found->value > 0) {
        struct timespec t = {(time_t)found->value, 0};
        nanosleep(&t, NULL);
    }
    found = setting(gpu, "lost");
    if (found && found->value > 0) return GPU_IS_LOST;
    snprintf(key, NAME, "fail.%s", function);
    found = setting(gpu, key);
    return found ? (int)found->value : SUCCESS;
}

static int number(Device gpu, const char *function, const char *key, double *value) {
    int result = enter(gpu, function);
    Setting *found = result == SUCCESS ? setting(gpu, key) : NULL;
    if (result != SUCCESS) return result;
    if (found == NULL) return NOT_SUPPORTED;
    *value = found->value;
    return SUCCESS;
}

static int whole(Device gpu, const char *function, const char *key, unsigned int *value) {
    double found;
    int result = number(gpu, function, key, &found);
    if (result == SUCCESS) *value = (unsigned int)found;
    return result;
}

static int large(Device gpu, const char *function, const char *key, unsigned long long *value) {
    double found;
    int result = number(gpu, function, key, &found);
    if (result == SUCCESS) *value = (unsigned long long)found;
    return result;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (!initialized && read_scenario() != SUCCESS) return UNKNOWN;
    initialized++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
    if (!initialized) return UNINITIALIZED;
    initialized--;
    return SUCCESS;
}
const char *nvmlErrorString(int result) {
    switch (result) {
    case SUCCESS: return "Success";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "999.0-stand-in");
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = 0;
    for (int i = 0; i < gpu_count; i++) *count += gpus[i].parent < 0;
    return initialized ? SUCCESS : UNINITIALIZED;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device *device) {
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].parent < 0 && index-- == 0) { *device = &gpus[i]; return SUCCESS; }
    return INVALID_ARGUMENT;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
    int found = index_of(uuid);
    if (!initialized) return UNINITIALIZED;
    if (found < 0) return NOT_FOUND;
    *device = &gpus[found];
    return SUCCESS;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *whole_gpu) {
    if (device->parent < 0) return INVALID_ARGUMENT;
    *whole_gpu = &gpus[device->parent];
    return SUCCESS;
}
int nvmlDeviceGetUUID(Device gpu, char *uuid, unsigned int length) {
    int result = enter(gpu, "nvmlDeviceGetUUID");
    if (result == SUCCESS) snprintf(uuid, length, "%s", gpu->uuid);
    return result;
}
int nvmlDeviceGetName(Device gpu, char *name, unsigned int length) {
    int result = enter(gpu, "nvmlDeviceGetName");
    if (result == SUCCESS) snprintf(name, length, "Stand-in");
    return result;
}
int nvmlDeviceGetUtilizationRates(Device gpu, Utilization *rates) {
    int result = whole(gpu, "nvmlDeviceGetUtilizationRates", "utilization", &rates->gpu);
    Setting *memory = result == SUCCESS ? setting(gpu, "memory_utilization") : NULL;
    rates->memory = memory ? (unsigned int)memory->value : 0;
    return result;
}
int nvmlDeviceGetMemoryInfo(Device gpu, Memory *memory) {
    double used;
    int result = number(gpu, "nvmlDeviceGetMemoryInfo", "memory", &used);
    if (result != SUCCESS) return result;
    Setting *total = setting(gpu, "memory_total");
    memory->total = (unsigned long long)(total ? total->value : 81920) << 20;
    memory->used = (unsigned long long)used << 20;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetTemperature(Device gpu, int sensor, unsigned int *value) {
    return sensor ? INVALID_ARGUMENT : whole(gpu, "nvmlDeviceGetTemperature", "temperature", value);
}
int nvmlDeviceGetClockInfo(Device gpu, int kind, unsigned int *value) {
    return whole(gpu, "nvmlDeviceGetClockInfo", kind == 1 ? "sm" : kind == 2 ? "mem" : "unknown", value);
}
int nvmlDeviceGetPowerUsage(Device gpu, unsigned int *milliwatts) {
    return whole(gpu, "nvmlDeviceGetPowerUsage", "power", milliwatts);
}
int nvmlDeviceGetEnforcedPowerLimit(Device gpu, unsigned int *milliwatts) {
    return whole(gpu, "nvmlDeviceGetEnforcedPowerLimit", "limit", milliwatts);
}
int nvmlDeviceGetFanSpeed(Device gpu, unsigned int *percent) {
    return whole(gpu, "nvmlDeviceGetFanSpeed", "fan", percent);
}
int nvmlDeviceGetPcieThroughput(Device gpu, int counter, unsigned int *value) {
    return whole(gpu, "nvmlDeviceGetPcieThroughput", counter ? "pcie_rx" : "pcie_tx", value);
}
int nvmlDeviceGetPcieReplayCounter(Device gpu, unsigned int *value) {
    return whole(gpu, "nvmlDeviceGetPcieReplayCounter", "replays", value);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device gpu, unsigned long long *reasons) {
    return large(gpu, "nvmlDeviceGetCurrentClocksThrottleReasons", "reasons", reasons);
}
int nvmlDeviceGetTotalEccErrors(Device gpu, int kind, int counter, unsigned long long *count) {
    if (counter != 0) return INVALID_ARGUMENT;
    return large(gpu, "nvmlDeviceGetTotalEccErrors", kind ? "ecc" : "ecc_corrected", count);
}
int nvmlDeviceGetMigMode(Device gpu, unsigned int *current, unsigned int *pending) {
    int result = whole(gpu, "nvmlDeviceGetMigMode", "mig", current);
    *pending = *current;
    return result;
}

static int running(Device gpu, const char *function, unsigned int *count, Process *processes) {
    int result = enter(gpu, function);
    Setting *found = result == SUCCESS ? setting(gpu, "processes") : NULL;
    if (result != SUCCESS) return result;
    unsigned int room = *count;
    *count = 0;
    if (found == NULL || strcmp(found->text, "none") == 0) return SUCCESS;
    char text[256], *rest = text, *word;
    snprintf(text, sizeof text, "%s", found->text);
    while ((word = strtok_r(rest, ",", &rest))) {
        char *colon = strchr(word, ':');
        if ((*count)++ >= room || processes == NULL) continue;
        Process *one = &processes[*count - 1];
        one->pid = strncmp(word, "parent", 6) == 0 ? (unsigned int)getppid()
                 : strncmp(word, "self", 4) == 0   ? (unsigned int)getpid()
                                                   : (unsigned int)strtoul(word, NULL, 10);
        one->used = colon ? strtoull(colon + 1, NULL, 10) << 20 : ~0ULL;
        one->instance = one->compute = ~0U;
    }
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device gpu, unsigned int *count, Process *processes) {
    return running(gpu, "nvmlDeviceGetComputeRunningProcesses_v3", count, processes);
}

#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksEventReasons(Device gpu, unsigned long long *reasons) {
    return large(gpu, "nvmlDeviceGetCurrentClocksEventReasons", "reasons", reasons);
}

/* Energy since T = 0: the power of the script added up, scaled, from a start, modulo the wrap. */
int nvmlDeviceGetTotalEnergyConsumption(Device gpu, unsigned long long *millijoules) {
    int result = enter(gpu, "nvmlDeviceGetTotalEnergyConsumption");
    if (result != SUCCESS) return result;
    if (setting(gpu, "power") == NULL) return NOT_SUPPORTED;
    double now = script_time(), from = 0, sum = 0;
    while (from < now) {
        double until = now;
        for (int s = 0; s < state_count; s++)
            if (states[s].time > from && states[s].time < until) until = states[s].time;
        Setting *scale = setting_at(gpu, "energy_scale", from);
        sum += setting_at(gpu, "power", from)->value * (until - from) * (scale ? scale->value : 1);
        from = until;
    }
    Setting *start = setting(gpu, "energy_start"), *wrap = setting(gpu, "energy_wrap");
    unsigned long long total = (unsigned long long)(sum + (start ? start->value : 0));
    *millijoules = wrap && wrap->value > 0 ? total % (unsigned long long)wrap->value : total;
    return SUCCESS;
}
int nvmlDeviceGetFieldValues(Device gpu, int count, Field *fields) {
    int result = enter(gpu, "nvmlDeviceGetFieldValues");
    Setting *memory = result == SUCCESS ? setting(gpu, "memory_temperature") : NULL;
    for (int i = 0; i < count && result == SUCCESS; i++) {
        int known = memory && fields[i].id == FIELD_MEMORY_TEMPERATURE;
        fields[i].result = known ? SUCCESS : NOT_SUPPORTED;
        fields[i].type = TYPE_UINT;
        if (known) fields[i].value.ui = (unsigned int)memory->value;
    }
    return result;
}
#endif
