"""What made-up families have found: the seed and what was wrong. A seed stays when its fault is mended."""

# Streaming from afar took for granted that no wanted piece of a source file overlaps another. A fused tensor
# of which one part is an extent and another is turned or cast breaks that: wrong values, or a count that is
# off. The last: a tied tensor alone in its file.
FAR = {
    8: "wrong values",
    26: "wrong values",
    51: "wrong values",
    90: "wrong values",
    134: "wrong values",
    191: "wrong values",
    22: "does not write each byte once",
    42: "does not write each byte once",
    97: "does not write each byte once",
    184: "does not write each byte once",
    398: "KeyError",
}
