/* What the examples print with, over semihosting: %c and %s. */
#ifndef PRINT_H
#define PRINT_H

#include <stdarg.h>

#include "../semihosting.h"

static inline int print_character(int character) {
  const char text[] = {(char)character, 0};
  semihosting_print(text);
  return character;
}

static inline int print_format(const char *format, ...) {
  va_list values;
  va_start(values, format);
  for (; *format; format++) {
    if (*format != '%') {
      print_character(*format);
    } else if (*++format == 'c') {
      print_character(va_arg(values, int));
    } else {
      semihosting_print(va_arg(values, const char *));
    }
  }
  va_end(values);
  return 0;
}

#endif
