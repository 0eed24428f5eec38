/* ESP-IDF calls app_main in a task of its own. */
void app_main(void);

int main(void) {
  app_main();
  return 0;
}
