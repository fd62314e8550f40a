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
  /// For many pictures of one size, such as a camera's frames, a ``FramePreprocessor`` keeps what this
  /// prepares anew for each.
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
    try FramePreprocessor(preprocessing).run(source, orientation: orientation, into: target)
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
}
