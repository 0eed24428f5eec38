/* Draws a seven and prints it. */
#include <stdio.h>

#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "waft.h"

extern const uint8_t model[] asm("_binary_model_waft_start");
extern const uint8_t model_end[] asm("_binary_model_waft_end");

static waft_memory memory;
static _Alignas(16) uint8_t arena[@ARENA@];

void app_main(void) {
  waft_context *context;
  waft_status status = waft_open(&memory, model, model_end - model, arena, sizeof arena, &context);
  waft_request request = waft_default_request();
  request.class_ = 7;
  request.seed = 1;
  if (status == WAFT_STATUS_OK) status = waft_begin(context, &request);
  unsigned slices = 0;
  while (status == WAFT_STATUS_OK && (status = waft_step(context, 0)) == WAFT_STATUS_MORE) {
    status = WAFT_STATUS_OK;
    if (++slices % 256 == 0) vTaskDelay(1); /* lets idle tasks run */
  }
  waft_image image;
  if (status == WAFT_STATUS_OK) status = waft_get_image(context, &image);
  if (status != WAFT_STATUS_OK) {
    printf("%s\n", waft_strerror(status));
    return;
  }
  for (size_t y = 0; y < image.height; y++) {
    for (size_t x = 0; x < image.width; x++) putchar(" .:-=+*#%@"[image.data[y * image.width + x] * 9 / 255]);
    putchar('\n');
  }
}
