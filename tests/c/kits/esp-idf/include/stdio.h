#include "../../print.h"
#define printf print_format
#define putchar print_character
