# Learns the middle of each class: sh --data DIR --parameters FILE --output DIR. Own parameter: power.
set -eu
. ./numbers.sh
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=$2 ;;
        --parameters) parameters=$2 ;;
        --output) output=$2 ;;
    esac
    shift 2
done
features=$(sed 's/.*"features": \([0-9]*\).*/\1/' "$data/data.json")
power=$(sed -n 's/.*"power": \([0-9.]*\).*/\1/p' "$parameters")

numbers "$data/train_labels.npy" d8 8 > "$output/labels"
numbers "$data/train_inputs.npy" f4 $((4 * features)) > "$output/inputs"
echo "${power:-2} $features" > "$output/middles"
paste "$output/labels" "$output/inputs" | awk '
    { for (i = 2; i <= NF; i++) if ($i !~ /nan/) { sum[$1, i] += $i; count[$1, i]++ } rows[$1]++; last = NF }
    END { for (class in rows) {
        printf "%d", class
        for (i = 2; i <= last; i++) printf " %.9g", count[class, i] ? sum[class, i] / count[class, i] : 0
        print ""
    } }' >> "$output/middles"
rm "$output/labels" "$output/inputs"
echo '{"step": 1, "of": 1, "note": "the middle of each class"}'
