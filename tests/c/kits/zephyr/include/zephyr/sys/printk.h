#include "../../../../print.h"
#define printk print_format
