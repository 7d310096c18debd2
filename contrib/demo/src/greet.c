#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greet.h"

char *greet(const char *name)
{
    size_t size = strlen(name) + sizeof "Hello, !";
    char *text = malloc(size);
    if (text)
        snprintf(text, size, "Hello, %s!", name);
    return text;
}
