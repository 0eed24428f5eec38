# A program of the emulated machine: its reset code, and how it is compiled and linked.
set(START ${CMAKE_CURRENT_LIST_DIR}/../start.c)
add_compile_options(-Os -Wall -Wextra -Werror -ffreestanding -ffunction-sections)
add_link_options(-nostdlib -nostartfiles -T ${LINK_SCRIPT} -Wl,--gc-sections -Wl,--no-warn-rwx-segments)
