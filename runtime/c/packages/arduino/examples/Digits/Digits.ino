// Draws a seven and prints it to the serial monitor.
#include <waft.h>

#include "model.h"

static waft_memory memory;
alignas(16) static uint8_t arena[@ARENA@];

static waft_status draw(waft_image *image) {
  waft_context *context;
  waft_status status = waft_open(&memory, model, sizeof model, arena, sizeof arena, &context);
  waft_request request = waft_default_request();
  request.class_ = 7;
  request.seed = 1;
  if (status == WAFT_STATUS_OK) status = waft_begin(context, &request);
  while (status == WAFT_STATUS_OK && (status = waft_step(context, 0)) == WAFT_STATUS_MORE) {
    status = WAFT_STATUS_OK;
    yield(); // a bounded slice of work was done
  }
  return status == WAFT_STATUS_OK ? waft_get_image(context, image) : status;
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  waft_image image;
  waft_status status = draw(&image);
  if (status != WAFT_STATUS_OK) {
    Serial.println(waft_strerror(status));
    return;
  }
  for (size_t y = 0; y < image.height; y++) {
    for (size_t x = 0; x < image.width; x++) Serial.print(" .:-=+*#%@"[image.data[y * image.width + x] * 9 / 255]);
    Serial.println("");
  }
}

void loop() {}
