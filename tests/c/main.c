/* Draws a picture through waft's C interface on a bare-metal core and prints it: the C twin of tests/firmware. The
 * build gives MODEL_FILE, the path of a .waft file, and ORIGINAL_FILE, that of a picture to start from with its mask behind it,
 * or an empty file; the semihosting command line gives "class=7 seed=1 steps=10". */
#include "semihosting.h"
#include "waft.h"

#define LINK(name, file)                                                                                                \
  __asm__(".section .rodata." #name ", \"a\"\n.balign 16\n.global " #name "\n" #name ": .incbin \"" file "\"\n"             \
          ".global " #name "_end\n" #name "_end:\n.previous\n");                                                        \
  extern const uint8_t name[], name##_end[]

LINK(model, MODEL_FILE);
LINK(original, ORIGINAL_FILE);

static waft_memory memory;
static _Alignas(16) uint8_t arena[ARENA_BYTES];

static const char *find(const char *line, const char *key) {
  for (; *line; line++) {
    const char *a = line, *b = key;
    while (*b && *a == *b) a++, b++;
    if (!*b) return a;
  }
  return 0;
}

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

static void print_hex(uint8_t byte) {
  const char text[] = {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15], 0};
  semihosting_print(text);
}

static int check(waft_status status, const char *what) {
  if (status == WAFT_STATUS_OK) return 1;
  semihosting_print(what);
  semihosting_print(": ");
  semihosting_print(waft_strerror(status));
  semihosting_print("\n");
  return 0;
}

/* Every misuse that a function can see is answered with its status. */
static int refuses_misuse(waft_context *context, size_t model_len) {
  waft_context *other = 0;
  waft_image image;
  waft_request request = waft_default_request();
  request.class_ = 99;
  waft_memory *misaligned = (waft_memory *)((unsigned char *)&memory + 1);
  return waft_open(0, model, model_len, arena, sizeof arena, &other) == WAFT_STATUS_NULL &&
         waft_open(misaligned, model, model_len, arena, sizeof arena, &other) == WAFT_STATUS_CONTEXT &&
         waft_open(&memory, model, 100, arena, sizeof arena, &other) == WAFT_STATUS_MODEL_FORMAT &&
         waft_open(&memory, model, model_len, arena, 16, &other) == WAFT_STATUS_ARENA_TOO_SMALL &&
         waft_open(&memory, model, model_len, arena, sizeof arena, &context) == WAFT_STATUS_OK &&
         waft_step(context, 0) == WAFT_STATUS_IDLE && waft_get_image(context, &image) == WAFT_STATUS_IDLE &&
         waft_begin(context, &request) == WAFT_STATUS_CLASS;
}

int main(void) {
  char line[128];
  semihosting_command_line(line, sizeof line);
  const size_t model_len = (size_t)(model_end - model);

  waft_context *context;
  waft_info info;
  if (!check(waft_inspect(model, model_len, &info), "inspect")) return 1;
  if (!check(waft_open(&memory, model, model_len, arena, sizeof arena, &context), "open")) return 1;
  if (!refuses_misuse(context, model_len)) {
    semihosting_print("a misuse was not refused\n");
    return 1;
  }

  waft_request request = waft_default_request();
  const char *value;
  if ((value = find(line, "class="))) request.class_ = (int32_t)number(value);
  if ((value = find(line, "seed="))) request.seed = number(value);
  if ((value = find(line, "steps="))) request.steps = number(value);
  if ((value = find(line, "guidance="))) request.guidance = (int32_t)number(value);
  if ((value = find(line, "start="))) request.start = number(value);
  const size_t original_len = (size_t)(original_end - original);
  if (original_len > 0) {
    request.original = original;
    request.original_len = info.height * info.width * info.channels;
    request.mask_len = original_len - request.original_len;
    if (request.mask_len > 0) request.mask = original + request.original_len;
  }
  if (!check(waft_begin(context, &request), "begin")) return 1;

  waft_image image;
  waft_progress progress = {0};
  waft_status status;
  while ((status = waft_step(context, &progress)) == WAFT_STATUS_MORE) {
    if (progress.step < progress.steps && waft_get_image(context, &image) != WAFT_STATUS_INCOMPLETE) return 1;
  }
  if (!check(status, "step") || progress.slice != progress.slices) return 1;
  if (!check(waft_get_image(context, &image), "image")) return 1;

  semihosting_print("image=");
  for (size_t i = 0; i < image.height * image.width * image.channels; i++) print_hex(image.data[i]);
  semihosting_print("\n");
  return 0;
}
