#include <stdio.h>
#include <stdlib.h>

#include "greet.h"

int main(int argc, char **argv)
{
    char *text = greet(argc > 1 ? argv[1] : "world");
    if (!text)
        return 1;
    puts(text);
    free(text);
    return 0;
}
