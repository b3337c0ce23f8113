# Says nothing. The short result is then the word for the exit code: "passed".

[ "$(sort notes.txt | head -n 1)" = "- alpha" ]
