/* Prints the lines, words and bytes of a file, or of stdin: the sample solution of a first assignment. */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int count(FILE *input)
{
    unsigned long lines = 0, words = 0, bytes = 0;
    int letter, inside = 0;

    while ((letter = getc(input)) != EOF) {
        bytes++;
        if (letter == '\n')
            lines++;
        if (isspace(letter)) {
            inside = 0;
        } else if (!inside) {
            inside = 1;
            words++;
        }
    }
    if (ferror(input))
        return -1;
    printf("%lu %lu %lu\n", lines, words, bytes);
    return 0;
}

int main(int argc, char **argv)
{
    FILE *input = stdin;

    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        fprintf(stderr, "usage: wordcount [FILE]\n");
        return 2;
    }
    if (argc == 2 && (input = fopen(argv[1], "r")) == NULL) {
        fprintf(stderr, "wordcount: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (count(input) != 0) {
        fprintf(stderr, "wordcount: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}
