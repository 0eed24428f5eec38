/* What the C of runtime/c/README.md leaves to its reader, for this computer.
 *
 *   readme                 draws with its code and prints the picture as the firmware does
 *   readme MODEL WEIGHTS   the same with a model whose weights it reads from a file */
#include <stdio.h>
#include <stdlib.h>

#include "waft.h"

__asm__(".section .rodata\n.balign 16\n.global model\nmodel: .incbin \"" MODEL_FILE "\"\n.global model_end\nmodel_end:\n"
        ".previous\n");

waft_status draw_seven(void);
waft_status use_flash(waft_context *context, void *flash);

static int fed;

void feed_watchdog(void) { fed++; }

void show(const waft_image *image) {
  printf("image=");
  for (uint32_t i = 0; i < image->height * image->width * image->channels; i++) printf("%02x", image->data[i]);
  printf("\n");
}

bool flash_read(void *flash, uint32_t offset, uint8_t *into, size_t len) {
  return !fseek(flash, (long)offset, SEEK_SET) && fread(into, 1, len, flash) == len;
}

static waft_memory memory;
static _Alignas(16) uint8_t file[1 << 20], arena[64 * 1024];

static waft_status draw_streamed(const char *model, const char *weights) {
  FILE *from = fopen(model, "rb"), *flash = fopen(weights, "rb");
  if (!from || !flash) return WAFT_STATUS_NULL;
  size_t len = fread(file, 1, sizeof file, from);
  waft_context *context;
  waft_status status = waft_open(&memory, file, len, arena, sizeof arena, &context);
  waft_request request = waft_default_request();
  request.class_ = 7;
  request.seed = 42;
  if (status == WAFT_STATUS_OK) status = use_flash(context, flash);
  if (status == WAFT_STATUS_OK) status = waft_begin(context, &request);
  if (status == WAFT_STATUS_OK) do status = waft_step(context, 0); while (status == WAFT_STATUS_MORE);
  waft_image image;
  if (status == WAFT_STATUS_OK) status = waft_get_image(context, &image);
  if (status == WAFT_STATUS_OK) show(&image);
  fclose(from);
  fclose(flash);
  return status;
}

int main(int count, char **arguments) {
  waft_status status = count > 2 ? draw_streamed(arguments[1], arguments[2]) : draw_seven();
  if (status == WAFT_STATUS_OK && (count > 2 || fed > 0)) return EXIT_SUCCESS;
  fprintf(stderr, "%s, watchdog fed %d times\n", waft_strerror(status), fed);
  return EXIT_FAILURE;
}
