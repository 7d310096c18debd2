/* Returns a greeting for a name; the caller frees it. */
char *greet(const char *name);
