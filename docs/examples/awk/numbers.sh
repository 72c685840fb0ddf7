# numbers FILE.npy TYPE BYTES: the numbers of an array as text, BYTES of the file a line. TYPE is od's, such as f4.
# A .npy file has 10 bytes and a header, whose length is in bytes 8 and 9; the numbers follow, row after row.
numbers() {
    start=$((10 + $(od -An -t u2 -j 8 -N 2 "$1")))
    od -An -v -j "$start" -t "$2" -w"$3" "$1"
}
