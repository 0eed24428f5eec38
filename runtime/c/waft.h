/* waft: diffusion models on microcontrollers. Written by cbindgen from runtime/c/src. */

#ifndef WAFT_H
#define WAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Words of memory for a context, on any target.
#define WAFT_CONTEXT_WORDS 80

// Class of a request that names none.
#define WAFT_NO_CLASS -1

// Guidance of 1: the conditional prediction alone. Guidance has 16 fractional bits.
#define WAFT_GUIDANCE_NONE (1 << 16)

// What a function answers.
typedef enum waft_status {
  // Done; of `waft_step`: the picture is complete.
  WAFT_STATUS_OK = 0,
  // There is more to do: call `waft_step` again.
  WAFT_STATUS_MORE = 1,
  // An argument is a null pointer.
  WAFT_STATUS_NULL = 2,
  // The context's memory is not aligned to 8.
  WAFT_STATUS_CONTEXT = 3,
  // Not a model file, of another version, or truncated.
  WAFT_STATUS_MODEL_FORMAT = 4,
  // The model file is damaged.
  WAFT_STATUS_MODEL_DAMAGED = 5,
  // The model does not start at a multiple of 4.
  WAFT_STATUS_MODEL_MISALIGNED = 6,
  // The library was built without the model's precision or one of its operations.
  WAFT_STATUS_MODEL_UNSUPPORTED = 7,
  // The arena is smaller than the model needs.
  WAFT_STATUS_ARENA_TOO_SMALL = 8,
  // The arena does not start at a multiple of 16.
  WAFT_STATUS_ARENA_MISALIGNED = 9,
  // The model carries no list of that many steps.
  WAFT_STATUS_STEPS = 10,
  // There is no such class, or a class is missing.
  WAFT_STATUS_CLASS = 11,
  // The model was exported without guidance, or the library was built without rescaled guidance.
  WAFT_STATUS_GUIDANCE = 12,
  // The model can predict but not sample.
  WAFT_STATUS_NOT_A_SAMPLER = 13,
  // No picture was begun, or it was cancelled or failed.
  WAFT_STATUS_IDLE = 14,
  // The picture is not complete yet.
  WAFT_STATUS_INCOMPLETE = 15,
  // The noise function had no more numbers.
  WAFT_STATUS_NOISE_EXHAUSTED = 16,
  // The model's bytes changed under the run.
  WAFT_STATUS_CORRUPT = 17,
  // A picture to start from, or its mask, has another size, or the first step does not exist.
  WAFT_STATUS_ORIGINAL = 18,
  // Memory, model, arena and what a function reads or writes overlap.
  WAFT_STATUS_OVERLAP = 19,
  // Called from inside a function that waft called.
  WAFT_STATUS_BUSY = 20,
  // The model streams its weights: call `waft_set_weights`.
  WAFT_STATUS_WEIGHTS_MISSING = 21,
  // The function that reads weights could not; `waft_step` again asks it again.
  WAFT_STATUS_WEIGHTS_UNREADABLE = 22,
  // Streamed weights are damaged or of another model; `waft_step` again reads them again.
  WAFT_STATUS_WEIGHTS_DAMAGED = 23,
  // The model reads a condition and the request has none, or the other way round, or it has another length.
  WAFT_STATUS_CONDITION = 24,
  // The model acts on an observation and the request has none, or the other way round, or it has another length.
  WAFT_STATUS_OBSERVATION = 25,
} waft_status;

// A model, its session and its run. Opaque to C; never moved.
typedef struct waft_context waft_context;

// What a model file says of itself.
typedef struct waft_info {
  // Bytes that its arena needs, aligned to 16.
  size_t arena_bytes;
  // Bytes of the weights' own file, which `waft_set_weights` is for; 0 if the model file carries them.
  uint32_t weights_bytes;
  // Rows of the picture.
  size_t height;
  // Columns of the picture.
  size_t width;
  // Channels of a pixel.
  size_t channels;
  // Number of classes; 0 if it is unconditional.
  uint32_t classes;
  // Steps of the default list.
  uint32_t steps;
  // Channels of the condition that it reads beside the sample, as high and wide as the picture; 0 if it reads none.
  size_t condition_channels;
  // Values of the observation that a policy acts on; 0 of a model that draws pictures. A policy's `width` is the number of its
  // steps, its `channels` that of the actions of a step.
  size_t observation_len;
} waft_info;

// Memory for a context: static, on a stack that outlives it, or allocated.
typedef struct waft_memory {
  // Of waft.
  uint64_t words[WAFT_CONTEXT_WORDS];
} waft_memory;

// Reads streamed weights: copies at most `len` bytes, from `offset` of the weights' file on, to `into` and answers how many;
// fewer or none if they have not arrived yet, in which case the next `waft_step` asks for the rest; or a negative number if
// they cannot be read. Offsets ascend from 0 in each network call.
typedef int32_t (*waft_read)(void *user, uint32_t offset, uint8_t *into, size_t len);

// A caller's noise: stores the standard Gaussian number `index` of draw `draw`, in 20 fractional bits, and answers true;
// or answers false if there are no more. Draw 0 is the initial sample, draw k + 1 the noise of step k, draw 2^32 - 1 - k that
// of the k-th way back; elements count in (row, column, channel) order.
typedef bool (*waft_noise)(void *user, uint32_t draw, uint32_t index, int32_t *value);

// What to draw. Start from `waft_default_request()`.
typedef struct waft_request {
  // Seed of the documented noise.
  uint64_t seed;
  // Class, or `WAFT_NO_CLASS`.
  int32_t class_;
  // Steps; 0 takes the model's default list.
  uint32_t steps;
  // Guidance, in 16 fractional bits.
  int32_t guidance;
  // First step of the list that is guided, from 0; steps that are not take the conditional prediction alone.
  uint32_t guided_from;
  // The step after the last one that is guided.
  uint32_t guided_to;
  // How far guided predictions are brought back to the contrast of conditional ones: 0 to 1, in 16 fractional bits.
  uint32_t guidance_rescale;
  // Noise of the caller instead of the seed's, or null.
  waft_noise noise;
  // Handed to `noise`.
  void *user;
  // Picture to start from, (row, column, channel) bytes that stay in use until the run ends, or null for noise alone.
  const uint8_t *original;
  // Its bytes.
  size_t original_len;
  // With a picture: a byte a pixel, 128 or more where it is drawn anew; or null. Stays in use until the run ends.
  const uint8_t *mask;
  // Its bytes.
  size_t mask_len;
  // With a picture: the first step of the list that is taken, from 0.
  uint32_t start;
  // With a mask: how many steps a way back undoes (RePaint), or 0 for none.
  uint32_t resample_jump;
  // How often each part of so many steps is taken.
  uint32_t resample_times;
  // Seed whose noise is mixed to that of `seed`, for pictures that change into one another.
  uint64_t to_seed;
  // How far from the one to the other: 0 to 1, in 16 fractional bits. 0 is `seed` alone.
  uint32_t toward;
  // The condition, in 20 fractional bits, (row, column, channel) order; it is copied. Null if the model reads none.
  const int32_t *condition;
  // Its length.
  size_t condition_len;
  // What a policy acts on, in 20 fractional bits, in the units of its training data, the oldest step first; it is copied. Null
  // if the model acts on none.
  const int32_t *observation;
  // Its length.
  size_t observation_len;
} waft_request;

// How far a run is.
typedef struct waft_progress {
  // Diffusion steps that are complete.
  uint32_t step;
  // Diffusion steps in all.
  uint32_t steps;
  // Slices of work that are complete.
  uint32_t slice;
  // Slices of work in all.
  uint32_t slices;
} waft_progress;

// A picture in the arena, (row, column, channel) order; valid until the next call that takes the context.
typedef struct waft_image {
  // The bytes.
  const uint8_t *data;
  // Rows.
  size_t height;
  // Columns.
  size_t width;
  // Channels of a pixel.
  size_t channels;
} waft_image;

// A policy's actions in the arena, (step, action) order, in 20 fractional bits and in the units of its training data; valid until
// the next call that takes the context.
typedef struct waft_actions {
  // The values.
  const int32_t *data;
  // How many: steps times actions of a step.
  size_t len;
} waft_actions;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Checks a model file and tells what it needs.
//
// # Safety
// `model` points to `model_len` readable bytes, `info` to one writable value; null is answered with a status.
enum waft_status waft_inspect(const uint8_t *model, size_t model_len, struct waft_info *info);

// Checks a model file completely and opens a context in `memory`. The model and the arena stay in use until the context is;
// memory, model and arena must not overlap. `context` is null after a failure.
// There is nothing to close: a context ends when its memory is used for something else.
//
// # Safety
// The three blocks are valid for as long as the context is used, and only the context uses `memory` and `arena`. Not from
// inside a function that waft calls, for the same memory.
enum waft_status waft_open(struct waft_memory *memory,
                           const uint8_t *model,
                           size_t model_len,
                           uint8_t *arena,
                           size_t arena_len,
                           struct waft_context **context);

// Names the function that reads the weights of a model that streams them, before the first picture; `user` is handed to it.
// A picture that was in progress is abandoned. Needs a library that was built with the feature `stream`.
//
// # Safety
// `context` is open, and `read` can be called with `user` for as long as the context is used.
enum waft_status waft_set_weights(struct waft_context *context,
                                  waft_read read,
                                  void *user);

// Seed 0, no class, the model's default list of steps, guidance 1 in all of them.
struct waft_request waft_default_request(void);

// Begins a picture; one that was in progress is abandoned.
//
// # Safety
// `context` is open, `request` points to a request, its condition and its observation are null or point to as many readable
// values as it says,
// its noise function can be called, and its picture and mask can be read, until the run ends.
enum waft_status waft_begin(struct waft_context *context,
                            const struct waft_request *request);

// Does a bounded slice of work: `WAFT_STATUS_MORE` until the picture is complete, then `WAFT_STATUS_OK`. After an error
// the picture is abandoned, but for those of streamed weights, which another call asks for again. `progress` may be null.
// Functions of the caller are called from here, and must call nothing of waft with the same context.
//
// # Safety
// `context` is open; `progress` is null or points to one writable value.
enum waft_status waft_step(struct waft_context *context,
                           struct waft_progress *progress);

// The complete picture.
//
// # Safety
// `context` is open, `image` points to one writable value.
enum waft_status waft_get_image(struct waft_context *context, struct waft_image *image);

// Changes the guidance, in 16 fractional bits, of the steps that begin from now on, those outside of the request's interval
// excepted: for a scale that depends on the step.
//
// # Safety
// `context` is open.
enum waft_status waft_set_guidance(struct waft_context *context,
                                   int32_t guidance);

// Abandons the picture in progress, if there is one.
//
// # Safety
// `context` is open.
enum waft_status waft_cancel(struct waft_context *context);

// A policy's actions, once complete. They replace the sample, so that `waft_get_image` has none any more. Of the `i8` precision
// only: `WAFT_STATUS_MODEL_UNSUPPORTED` for others, `WAFT_STATUS_INCOMPLETE` also for a model that draws pictures.
//
// # Safety
// `context` is open, `actions` points to one writable value.
enum waft_status waft_get_actions(struct waft_context *context,
                                  struct waft_actions *actions);

// What a status means, in English; never null.
const char *waft_strerror(uint32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WAFT_H */
