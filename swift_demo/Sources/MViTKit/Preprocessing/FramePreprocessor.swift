/// Brings a stream of pictures to a model's input, and keeps what pictures of one size share.
///
/// The tables of the resize and the memory between its passes are made for the first picture and kept
/// while the pictures' size and orientation stay: a camera's frame then costs no allocation at all.
/// The pixels are those of ``Preprocessor``. Not for several threads at once.
public final class FramePreprocessor {
  /// The steps.
  public let preprocessing: Preprocessing
  private var prepared: PreparedResize?

  /// A preprocessor with these steps.
  public init(_ preprocessing: Preprocessing) {
    self.preprocessing = preprocessing
  }

  /// Resizes a picture and crops or pads it into a buffer of the input's size.
  ///
  /// The bytes are put into the order of the target; which channel the model sees first is the
  /// package's own business. Where the picture does not reach, the target becomes opaque black.
  ///
  /// - Parameters:
  ///   - source: the picture as it is stored.
  ///   - orientation: how to turn it upright.
  ///   - target: a buffer of the input's size, apart from the source.
  /// - Returns: where the picture lies in the input.
  /// - Throws: ``PreprocessingError`` for a target of another size, or an unworkable one.
  @discardableResult
  public func run(
    _ source: PixelBufferView, orientation: ImageOrientation = .up,
    into target: MutablePixelBufferView
  ) throws(PreprocessingError) -> Placement {
    guard target.size == preprocessing.inputSize else {
      throw .wrongTargetSize(target.size, expected: preprocessing.inputSize)
    }
    let resize: PreparedResize
    if let prepared, prepared.fits(source.size, orientation) {
      resize = prepared
    } else {
      resize = try PreparedResize(preprocessing, storedSize: source.size, orientation: orientation)
      prepared = resize
    }
    resize.run(source, into: target)
    return resize.placement
  }
}

/// A resize of pictures of one size: where they lie, the tables, and memory to work in.
private final class PreparedResize {
  let placement: Placement
  private let storedSize: PixelSize
  private let orientation: ImageOrientation
  private let columns: Taps
  private let rows: Taps
  private let isRowsFirst: Bool
  private let scratch: UnsafeMutableBufferPointer<UInt8>
  private let sums: UnsafeMutableBufferPointer<Int32>

  init(
    _ preprocessing: Preprocessing, storedSize: PixelSize, orientation: ImageOrientation
  ) throws(PreprocessingError) {
    self.storedSize = storedSize
    self.orientation = orientation
    let upright = orientation.uprightSize(of: storedSize)
    placement = try preprocessing.placement(of: upright)
    let (columns, rows) = (placement.validColumns, placement.validRows)
    let across = Taps(
      from: upright.width, to: placement.resizedSize.width,
      outputs: columns.lowerBound + placement.offsetX..<columns.upperBound + placement.offsetX,
      filter: preprocessing.resample, isReversed: orientation.reversesColumns)
    let down = Taps(
      from: upright.height, to: placement.resizedSize.height,
      outputs: rows.lowerBound + placement.offsetY..<rows.upperBound + placement.offsetY,
      filter: preprocessing.resample, isReversed: orientation.reversesRows)
    let isOnItsSide = orientation.swapsSides
    self.columns = isOnItsSide ? down : across
    self.rows = isOnItsSide ? across : down
    isRowsFirst = isOnItsSide != placement.shrinksHeightFirst
    scratch = .allocate(
      capacity: Resampling.scratchLength(
        columns: self.columns, rows: self.rows, isRowsFirst: isRowsFirst))
    scratch.initialize(repeating: 0)
    sums = .allocate(capacity: Resampling.sumsLength)
    sums.initialize(repeating: 0)
  }

  deinit {
    scratch.deallocate()
    sums.deallocate()
  }

  func fits(_ size: PixelSize, _ orientation: ImageOrientation) -> Bool {
    size == storedSize && orientation == self.orientation
  }

  func run(_ source: PixelBufferView, into target: MutablePixelBufferView) {
    // Neither can be empty: a placement always shows some of its picture.
    guard let scratch = scratch.baseAddress, let sums = sums.baseAddress else { return }
    if placement.isPadded { fillBlack(target) }
    let corner =
      target.base + placement.validRows.lowerBound * target.bytesPerRow
      + placement.validColumns.lowerBound * 4
    let isOnItsSide = orientation.swapsSides
    Resampling(
      source: source, columns: columns, rows: rows, isRowsFirst: isRowsFirst,
      target: corner.assumingMemoryBound(to: UInt8.self),
      columnStep: isOnItsSide ? target.bytesPerRow : 4,
      rowStep: isOnItsSide ? 4 : target.bytesPerRow,
      exchangesRedAndBlue: source.order != target.order, scratch: scratch, sums: sums
    ).run()
  }

  private func fillBlack(_ target: MutablePixelBufferView) {
    for y in 0..<target.size.height {
      let row = target.base + y * target.bytesPerRow
      for x in 0..<target.size.width {
        row.storeBytes(of: UInt32(0xFF00_0000).littleEndian, toByteOffset: x * 4, as: UInt32.self)
      }
    }
  }
}

extension Placement {
  /// Whether Pillow changes the height before the width: where that alone saves much.
  fileprivate var shrinksHeightFirst: Bool {
    let (lostRows, lostColumns) = (
      imageSize.height - resizedSize.height, imageSize.width - resizedSize.width
    )
    return lostRows > 0 && lostRows > 2 * lostColumns
  }
}
