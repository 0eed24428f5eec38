/* Draws a seven and prints it. */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "waft.h"

static const uint8_t model[] __aligned(16) = {
#include <model.inc>
};

static waft_memory memory;
static uint8_t arena[@ARENA@] __aligned(16);

int main(void) {
  waft_context *context;
  waft_status status = waft_open(&memory, model, sizeof model, arena, sizeof arena, &context);
  waft_request request = waft_default_request();
  request.class_ = 7;
  request.seed = 1;
  if (status == WAFT_STATUS_OK) status = waft_begin(context, &request);
  while (status == WAFT_STATUS_OK && (status = waft_step(context, 0)) == WAFT_STATUS_MORE) {
    status = WAFT_STATUS_OK;
    k_yield(); /* a bounded slice of work was done */
  }
  waft_image image;
  if (status == WAFT_STATUS_OK) status = waft_get_image(context, &image);
  if (status != WAFT_STATUS_OK) {
    printk("%s\n", waft_strerror(status));
    return 1;
  }
  for (size_t y = 0; y < image.height; y++) {
    for (size_t x = 0; x < image.width; x++) printk("%c", " .:-=+*#%@"[image.data[y * image.width + x] * 9 / 255]);
    printk("\n");
  }
  return 0;
}
