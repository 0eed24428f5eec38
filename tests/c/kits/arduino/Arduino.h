/* What Arduino's core defines, as far as the example uses it. */
#include "../print.h"

struct SerialPort {
  void begin(long) {}
  explicit operator bool() const { return true; }
  bool operator!() const { return false; }
  void print(char character) { print_character(character); }
  void println(const char *text) { print_format("%s\n", text); }
};
static SerialPort Serial;

static inline void yield() {}
