/// The two passes of a resize, on memory.
///
/// The upright picture's columns are the stored ones, or, of a picture that is stored on its side,
/// the stored rows. Everything here is about stored rows and columns.
struct Resampling {
  let source: PixelBufferView
  /// What to make of the pixels within each row.
  let columns: Taps
  /// What to make of whole rows.
  let rows: Taps
  /// Whether rows are combined before the pixels within them.
  let isRowsFirst: Bool
  /// The first target pixel.
  let target: UnsafeMutablePointer<UInt8>
  /// Distance in bytes of the target pixels of neighbouring columns.
  let columnStep: Int
  /// Distance in bytes of the target pixels of neighbouring rows.
  let rowStep: Int
  let exchangesRedAndBlue: Bool
  /// Memory for what lies between the passes: of ``scratchLength(columns:rows:isRowsFirst:)`` bytes.
  let scratch: UnsafeMutablePointer<UInt8>
  /// Memory for the sums of a piece of a row: of ``sumsLength`` numbers.
  let sums: UnsafeMutablePointer<Int32>

  /// So many sums stay in the fastest cache while all rows are added to them.
  static let sumsLength = 1024

  /// Bytes that the passes need for what lies between them.
  static func scratchLength(columns: Taps, rows: Taps, isRowsFirst: Bool) -> Int {
    // One more row than there is, for results that do not lie beside each other in the target.
    isRowsFirst
      ? columns.inputs.count * 4 : (rows.inputs.count + 1) * columns.outputs.count * 4
  }

  private var pixels: UnsafePointer<UInt8> { source.base.assumingMemoryBound(to: UInt8.self) }

  /// Resizes.
  func run() {
    if isRowsFirst { runRowsFirst() } else { runColumnsFirst() }
    finishPixels()
  }

  private func runColumnsFirst() {
    let inputRows = rows.inputs
    let bytesPerRow = columns.outputs.count * 4
    for line in 0..<inputRows.count {
      combineWithinRow(
        pixels + (inputRows.lowerBound + line) * source.bytesPerRow, columns, origin: 0,
        into: scratch + line * bytesPerRow, step: 4)
    }
    let spare = scratch + inputRows.count * bytesPerRow
    for entry in 0..<rows.outputs.count {
      let result = target + entry * rowStep
      combineRows(
        UnsafePointer(scratch), bytesPerRow: bytesPerRow, origin: inputRows.lowerBound, rows,
        entry, byteCount: bytesPerRow, sums: sums, into: columnStep == 4 ? result : spare)
      if columnStep != 4 { spread(spare, over: result) }
    }
  }

  private func runRowsFirst() {
    let inputColumns = columns.inputs
    let bytesPerRow = inputColumns.count * 4
    for entry in 0..<rows.outputs.count {
      combineRows(
        pixels + inputColumns.lowerBound * 4, bytesPerRow: source.bytesPerRow, origin: 0, rows,
        entry, byteCount: bytesPerRow, sums: sums, into: scratch)
      combineWithinRow(
        UnsafePointer(scratch), columns, origin: inputColumns.lowerBound,
        into: target + entry * rowStep, step: columnStep)
    }
  }

  /// Copies a row of results to where they belong.
  private func spread(
    _ results: UnsafeMutablePointer<UInt8>, over target: UnsafeMutablePointer<UInt8>
  ) {
    for column in 0..<columns.outputs.count {
      for channel in 0..<3 {
        target[column * columnStep + channel] = results[column * 4 + channel]
      }
    }
  }

  /// Puts every pixel into the target's order and makes it opaque.
  private func finishPixels() {
    for row in 0..<rows.outputs.count {
      for column in 0..<columns.outputs.count {
        let pixel = target + row * rowStep + column * columnStep
        if exchangesRedAndBlue { swap(&pixel[0], &pixel[2]) }
        pixel[3] = 255
      }
    }
  }
}

/// Makes target pixels out of the pixels of one row.
///
/// - Parameters:
///   - row: the pixels, the first of which has the index `origin`.
///   - taps: what to make.
///   - origin: index of the row's first pixel.
///   - target: the first target pixel.
///   - step: distance between target pixels, in bytes.
private func combineWithinRow(
  _ row: UnsafePointer<UInt8>, _ taps: borrowing Taps, origin: Int,
  into target: UnsafeMutablePointer<UInt8>, step: Int
) {
  taps.weights.withUnsafeBufferPointer { weights in
    var target = target
    for entry in 0..<taps.starts.count {
      var pixel = row + (taps.starts[entry] - origin) * 4
      var (first, second, third) = (Taps.half, Taps.half, Taps.half)
      let firstWeight = entry * taps.stride
      for index in firstWeight..<firstWeight + taps.counts[entry] {
        let weight = weights[index]
        first &+= Int32(pixel[0]) &* weight
        second &+= Int32(pixel[1]) &* weight
        third &+= Int32(pixel[2]) &* weight
        pixel += 4
      }
      target[0] = clampedPixel(first)
      target[1] = clampedPixel(second)
      target[2] = clampedPixel(third)
      target += step
    }
  }
}

/// Makes one target row out of whole rows.
///
/// - Parameters:
///   - rows: the rows, the first of which has the index `origin`.
///   - bytesPerRow: distance between rows.
///   - origin: index of the first row.
///   - taps: what to make.
///   - entry: which of the target rows to make.
///   - byteCount: length of the rows.
///   - sums: memory for ``Resampling/sumsLength`` sums.
///   - target: the target row.
private func combineRows(
  _ rows: UnsafePointer<UInt8>, bytesPerRow: Int, origin: Int, _ taps: borrowing Taps,
  _ entry: Int, byteCount: Int, sums: UnsafeMutablePointer<Int32>,
  into target: UnsafeMutablePointer<UInt8>
) {
  let first = rows + (taps.starts[entry] - origin) * bytesPerRow
  let count = taps.counts[entry]
  let block = min(Resampling.sumsLength, byteCount)
  taps.weights.withUnsafeBufferPointer { weights in
    for start in stride(from: 0, to: byteCount, by: block) {
      let length = min(block, byteCount - start)
      sums.update(repeating: Taps.half, count: length)
      for index in 0..<count {
        let weight = weights[entry * taps.stride + index]
        let row = first + index * bytesPerRow + start
        for byte in 0..<length { sums[byte] &+= Int32(row[byte]) &* weight }
      }
      for byte in 0..<length { target[start + byte] = clampedPixel(sums[byte]) }
    }
  }
}

@inline(__always)
private func clampedPixel(_ sum: Int32) -> UInt8 {
  UInt8(truncatingIfNeeded: max(0, min(255, sum >> Int32(Taps.precision))))
}
