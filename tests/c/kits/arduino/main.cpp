/* Arduino's core, and the sketch as it would include it. */
#include "Arduino.h"

#include "Digits.ino"

extern "C" int main() {
  setup();
  return 0;
}
