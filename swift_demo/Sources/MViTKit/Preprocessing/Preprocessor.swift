/// Brings photos to a model's input with the very pixels of the Python side.
///
/// Works as the `Image.resize` of Pillow 13 does: antialiased, in two passes with 8 bits in between,
/// and with the same fixed-point weights, so that the result agrees byte for byte. (Pillow up to 12
/// always changes the width first; of tall images, some of its values differ by one.) Only the part
/// of the resized image that the crop leaves is computed.
public struct Preprocessor: Hashable, Sendable {
  /// The steps.
  public let preprocessing: Preprocessing

  /// A preprocessor with these steps.
  public init(_ preprocessing: Preprocessing) {
    self.preprocessing = preprocessing
  }

  /// Resizes a photo and crops or pads it into a buffer of the input's size.
  ///
  /// The bytes are put into the order of the target; which channel the model sees first is the
  /// package's own business. Where the photo does not reach, the target becomes opaque black.
  ///
  /// - Parameters:
  ///   - source: the photo as it is stored.
  ///   - orientation: how to turn it upright.
  ///   - target: a buffer of the input's size, apart from the source.
  /// - Returns: where the photo lies in the input.
  /// - Throws: ``PreprocessingError`` for a target of another size, or an unworkable one.
  @discardableResult
  public func run(
    _ source: PixelBufferView, orientation: ImageOrientation = .up,
    into target: MutablePixelBufferView
  ) throws(PreprocessingError) -> Placement {
    guard target.size == preprocessing.inputSize else {
      throw .wrongTargetSize(target.size, expected: preprocessing.inputSize)
    }
    let upright = orientation.uprightSize(of: source.size)
    let placement = try preprocessing.placement(of: upright)
    if placement.isPadded { fillBlack(target) }
    let (columns, rows) = (placement.validColumns, placement.validRows)
    let across = Taps(
      from: upright.width, to: placement.resizedSize.width,
      outputs: columns.lowerBound + placement.offsetX..<columns.upperBound + placement.offsetX,
      filter: preprocessing.resample, isReversed: orientation.reversesColumns)
    let down = Taps(
      from: upright.height, to: placement.resizedSize.height,
      outputs: rows.lowerBound + placement.offsetY..<rows.upperBound + placement.offsetY,
      filter: preprocessing.resample, isReversed: orientation.reversesRows)
    let corner =
      target.base + rows.lowerBound * target.bytesPerRow + columns.lowerBound * 4
    let isOnItsSide = orientation.swapsSides
    Resampling(
      source: source, columns: isOnItsSide ? down : across, rows: isOnItsSide ? across : down,
      isRowsFirst: isOnItsSide != placement.shrinksHeightFirst,
      target: corner.assumingMemoryBound(to: UInt8.self),
      columnStep: isOnItsSide ? target.bytesPerRow : 4,
      rowStep: isOnItsSide ? 4 : target.bytesPerRow,
      exchangesRedAndBlue: source.order != target.order
    ).run()
    return placement
  }

  /// Resizes a photo and crops or pads it to the input's size.
  ///
  /// - Parameters:
  ///   - image: the photo as it is stored.
  ///   - orientation: how to turn it upright.
  ///   - order: order of the bytes of the result.
  /// - Returns: the input, and where the photo lies in it.
  /// - Throws: ``PreprocessingError`` for an unworkable size.
  public func run(
    _ image: PixelImage, orientation: ImageOrientation = .up, order: PixelOrder = .bgra
  ) throws -> (image: PixelImage, placement: Placement) {
    var input = try PixelImage(size: preprocessing.inputSize, order: order)
    let placement = try input.withMutableView { target in
      try image.withView { try run($0, orientation: orientation, into: target) }
    }
    return (input, placement)
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
