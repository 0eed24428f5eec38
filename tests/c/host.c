/* The C interface on this computer: what it refuses, and pictures from streamed weights.
 *
 *   host MODEL                 misuse is refused, then class 5 with seed 5, printed as the firmware does
 *   host MODEL WEIGHTS         the same picture through a slow source of weights */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "waft.h"

typedef struct {
  unsigned char *data;
  size_t len;
} File;

static File read_file(const char *path) {
  FILE *stream = fopen(path, "rb");
  File file = {0, 0};
  if (stream && !fseek(stream, 0, SEEK_END)) {
    file.len = (size_t)ftell(stream);
    rewind(stream);
    file.data = aligned_alloc(16, (file.len + 15) / 16 * 16);
    if (fread(file.data, 1, file.len, stream) != file.len) file.len = 0;
    fclose(stream);
  }
  return file;
}

static int failures;

static void expect(const char *what, waft_status found, waft_status expected) {
  if (found == expected) return;
  fprintf(stderr, "%s: %s, expected: %s\n", what, waft_strerror(found), waft_strerror(expected));
  failures++;
}

static waft_memory memory;
static unsigned char *arena;
static size_t arena_len;

/* A weights file that hands out at most 100 bytes at a time, nothing every third time, and fails once. */
typedef struct {
  File file;
  unsigned asked, fails_at;
} Slow;

static int32_t slow_read(void *user, uint32_t offset, uint8_t *into, size_t len) {
  Slow *slow = user;
  unsigned asked = slow->asked++;
  if (asked == slow->fails_at) return -1;
  if (asked % 3 == 0) return 0;
  if (len > 100) len = 100;
  if (offset > slow->file.len || len > slow->file.len - offset) return -1;
  memcpy(into, slow->file.data + offset, len);
  return (int32_t)len;
}

/* Noise that calls back. */
static waft_context *reentered;
static int reentries;

static bool meddling_noise(void *user, uint32_t draw, uint32_t index, int32_t *value) {
  (void)user, (void)draw;
  if (index == 0) {
    waft_request request = waft_default_request();
    waft_image image;
    expect("step inside noise", waft_step(reentered, 0), WAFT_STATUS_BUSY);
    expect("begin inside noise", waft_begin(reentered, &request), WAFT_STATUS_BUSY);
    expect("cancel inside noise", waft_cancel(reentered), WAFT_STATUS_BUSY);
    expect("image inside noise", waft_get_image(reentered, &image), WAFT_STATUS_BUSY);
    expect("weights inside noise", waft_set_weights(reentered, slow_read, 0), WAFT_STATUS_BUSY);
    reentries++;
  }
  *value = (int32_t)(index * 977 % 1048576) - 524288;
  return true;
}

static bool short_noise(void *user, uint32_t draw, uint32_t index, int32_t *value) {
  (void)user, (void)draw;
  *value = 0;
  return index < 10;
}

static waft_status finish(waft_context *context) {
  waft_status status;
  while ((status = waft_step(context, 0)) == WAFT_STATUS_MORE) {
  }
  return status;
}

/* A failure leaves no context behind. */
static void expect_closed(const char *what, waft_status found, waft_context *context, waft_status expected) {
  expect(what, found, expected);
  if (context) fprintf(stderr, "%s: the context is not null\n", what), failures++;
}

#define OPEN(MEMORY, MODEL, MODEL_LEN, ARENA, ARENA_LEN, EXPECTED)                                                    \
  do {                                                                                                               \
    waft_context *out = (waft_context *)&memory;                                                                     \
    waft_status found = waft_open((waft_memory *)(MEMORY), MODEL, MODEL_LEN, ARENA, ARENA_LEN, &out);                \
    expect_closed(#MEMORY ", " #MODEL ", " #MODEL_LEN ", " #ARENA ", " #ARENA_LEN, found, out, EXPECTED);            \
  } while (0)

static void refuses_misuse(File model) {
  unsigned char *data = model.data;
  OPEN(0, data, model.len, arena, arena_len, WAFT_STATUS_NULL);
  OPEN((unsigned char *)&memory + 1, data, model.len, arena, arena_len, WAFT_STATUS_CONTEXT);
  OPEN(&memory, data, 100, arena, arena_len, WAFT_STATUS_MODEL_FORMAT);
  OPEN(&memory, data, model.len, arena, 16, WAFT_STATUS_ARENA_TOO_SMALL);
  OPEN(&memory, data, model.len, arena + 8, arena_len, WAFT_STATUS_ARENA_MISALIGNED);
  OPEN(arena, data, model.len, arena, arena_len, WAFT_STATUS_OVERLAP);
  OPEN(arena + arena_len - 8, data, model.len, arena, arena_len, WAFT_STATUS_OVERLAP);
  OPEN(data + 16, data, model.len, arena, arena_len, WAFT_STATUS_OVERLAP);
  OPEN(&memory, data, model.len, data, arena_len, WAFT_STATUS_OVERLAP);
  data[model.len - 1] ^= 1;
  OPEN(&memory, data, model.len, arena, arena_len, WAFT_STATUS_MODEL_DAMAGED);
  data[model.len - 1] ^= 1;
  expect("out in the arena",
         waft_open(&memory, data, model.len, arena, arena_len, (waft_context **)(void *)arena),
         WAFT_STATUS_OVERLAP);

  waft_context *context;
  waft_image image;
  waft_request request = waft_default_request();
  expect("open", waft_open(&memory, data, model.len, arena, arena_len, &context), WAFT_STATUS_OK);
  expect("step at rest", waft_step(context, 0), WAFT_STATUS_IDLE);
  expect("image at rest", waft_get_image(context, &image), WAFT_STATUS_IDLE);
  expect("no context", waft_step(0, 0), WAFT_STATUS_NULL);
  request.class_ = 99;
  expect("class", waft_begin(context, &request), WAFT_STATUS_CLASS);
  request.class_ = 5;
  request.steps = 7;
  expect("steps", waft_begin(context, &request), WAFT_STATUS_STEPS);
  request.steps = 0;
  request.original = arena;
  request.original_len = 64;
  expect("a picture in the arena", waft_begin(context, &request), WAFT_STATUS_OVERLAP);
  request.original = model.data;
  request.original_len = 7;
  expect("a picture of another size", waft_begin(context, &request), WAFT_STATUS_ORIGINAL);
  request.original = 0;
  request.original_len = 0;
  expect("guidance at rest", waft_set_guidance(context, WAFT_GUIDANCE_NONE), WAFT_STATUS_IDLE);
  request.original = model.data;
  request.original_len = 64;
  request.resample_jump = 2;
  request.resample_times = 2;
  expect("resampling without a mask", waft_begin(context, &request), WAFT_STATUS_ORIGINAL);
  request.mask = model.data;
  request.mask_len = 64;
  expect("resampling", waft_begin(context, &request), WAFT_STATUS_OK);
  waft_progress progress;
  expect("a step of resampling", waft_step(context, &progress), WAFT_STATUS_MORE);
  /* Ten steps, and two again at each of four places. */
  if (progress.steps != 18) fprintf(stderr, "%u steps with resampling\n", (unsigned)progress.steps), failures++;
  expect("guidance", waft_set_guidance(context, 3 * WAFT_GUIDANCE_NONE), WAFT_STATUS_OK);
  request.original = request.mask = 0;
  request.original_len = request.mask_len = 0;
  request.resample_jump = request.resample_times = 0;
  expect("begin", waft_begin(context, &request), WAFT_STATUS_OK);
  expect("progress in the arena", waft_step(context, (waft_progress *)(void *)arena), WAFT_STATUS_OVERLAP);
  expect("progress in the context", waft_step(context, (waft_progress *)(void *)(memory.words + 8)), WAFT_STATUS_OVERLAP);
  expect("image in the arena", waft_get_image(context, (waft_image *)(void *)(arena + 16)), WAFT_STATUS_OVERLAP);
  expect("image too early", waft_get_image(context, &image), WAFT_STATUS_INCOMPLETE);
  expect("cancel", waft_cancel(context), WAFT_STATUS_OK);
  expect("step after cancel", waft_step(context, 0), WAFT_STATUS_IDLE);

  request.noise = short_noise;
  expect("begin with noise that ends", waft_begin(context, &request), WAFT_STATUS_OK);
  expect("noise that ends", finish(context), WAFT_STATUS_NOISE_EXHAUSTED);
  expect("step after failure", waft_step(context, 0), WAFT_STATUS_IDLE);

  reentered = context;
  request.noise = meddling_noise;
  expect("begin with noise that calls back", waft_begin(context, &request), WAFT_STATUS_OK);
  expect("noise that calls back", finish(context), WAFT_STATUS_OK);
  if (!reentries) fprintf(stderr, "noise was not asked\n"), failures++;
}

/* One picture of class 5. */
static void draw(waft_context *context, waft_request request, unsigned char into[64]) {
  waft_image image = {0, 0, 0, 0};
  request.class_ = 5;
  expect("begin", waft_begin(context, &request), WAFT_STATUS_OK);
  expect("draw", finish(context), WAFT_STATUS_OK);
  expect("image", waft_get_image(context, &image), WAFT_STATUS_OK);
  if (image.height * image.width * image.channels == 64) memcpy(into, image.data, 64);
}

/* Noise between two seeds ends where theirs is; guidance that ends before the first step is none. */
static void draws_what_is_equal(File model) {
  unsigned char pictures[6][64];
  waft_context *context;
  expect("open", waft_open(&memory, model.data, model.len, arena, arena_len, &context), WAFT_STATUS_OK);
  waft_request request = waft_default_request();
  request.seed = 8;
  draw(context, request, pictures[0]);
  request.guidance = 3 * WAFT_GUIDANCE_NONE;
  request.guided_to = 0;
  request.guidance_rescale = 1 << 16;
  draw(context, request, pictures[1]);
  request.guided_to = 4;
  draw(context, request, pictures[2]);
  request = waft_default_request();
  request.seed = 9;
  request.to_seed = 8;
  request.toward = 1 << 16;
  draw(context, request, pictures[3]);
  request.toward = 1 << 15;
  draw(context, request, pictures[4]);
  request.toward = 0;
  draw(context, request, pictures[5]);
  for (int i = 1; i < 6; i++) {
    int is_first = !memcmp(pictures[0], pictures[i], 64);
    if (is_first != (i == 1 || i == 3)) fprintf(stderr, "picture %d is not as expected\n", i), failures++;
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  File model = read_file(argv[1]);
  waft_info info;
  expect("inspect", waft_inspect(model.data, model.len, &info), WAFT_STATUS_OK);
  if (failures) return 1;
  arena_len = info.arena_bytes;
  arena = aligned_alloc(16, arena_len + 16);

  waft_context *context;
  waft_request request = waft_default_request();
  request.class_ = 5;
  request.seed = 5;
  Slow slow = {{0, 0}, 0, 1000};
  if (argc == 2) refuses_misuse(model);
  if (argc == 2 && !failures) draws_what_is_equal(model);
  expect("open", waft_open(&memory, model.data, model.len, arena, arena_len, &context), WAFT_STATUS_OK);
  if (failures) return 1;
  if (argc > 2) {
    slow.file = read_file(argv[2]);
    if (info.weights_bytes != slow.file.len) fprintf(stderr, "the weights' size is not the model's\n"), failures++;
    expect("begin without weights", waft_begin(context, &request), WAFT_STATUS_WEIGHTS_MISSING);
    expect("weights", waft_set_weights(context, slow_read, &slow), WAFT_STATUS_OK);
  }
  expect("begin", waft_begin(context, &request), WAFT_STATUS_OK);
  waft_status status = finish(context);
  if (argc > 2) {
    /* The source failed once; the next step asks again. */
    expect("a read that fails", status, WAFT_STATUS_WEIGHTS_UNREADABLE);
    status = finish(context);
  }
  expect("step", status, WAFT_STATUS_OK);
  waft_image image = {0, 0, 0, 0};
  expect("image", waft_get_image(context, &image), WAFT_STATUS_OK);
  printf("image=");
  for (size_t i = 0; i < image.height * image.width * image.channels; i++) printf("%02x", image.data[i]);
  printf("\n");
  free(slow.file.data);
  free(arena);
  free(model.data);
  return failures != 0;
}
