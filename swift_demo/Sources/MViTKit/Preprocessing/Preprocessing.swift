/// How a photo of any shape is brought to a model's input.
public enum Fit: String, CaseIterable, Hashable, Sendable {
  /// Resized and cut out around its centre; what overhangs is black.
  case crop
  /// Resized to the input whatever its aspect ratio.
  case stretch
  /// Resized as a whole into the input, and centred on black.
  case pad
}

/// What an image is resized to before the crop.
public enum ResizeTarget: Hashable, Sendable {
  /// The shorter edge gets this length; the other keeps the aspect ratio, rounded down.
  case shortestEdge(Int)
  /// Exactly this size.
  case exact(PixelSize)
}

/// The app's part of a model's preprocessing; scaling and colour order are built into the package.
public struct Preprocessing: Hashable, Sendable {
  /// Size of the package's image input.
  public var inputSize: PixelSize
  /// How a photo is brought to that size.
  public var fit: Fit
  /// What `crop` resizes to first; `nil` crops the photo as it is.
  public var resize: ResizeTarget?
  /// The filter of every resize.
  public var resample: ResampleFilter

  /// A description of the steps.
  public init(inputSize: PixelSize, fit: Fit, resize: ResizeTarget?, resample: ResampleFilter) {
    self.inputSize = inputSize
    self.fit = fit
    self.resize = resize
    self.resample = resample
  }

  /// Lays out an image on the model's input.
  ///
  /// - Parameter imageSize: size of the upright image.
  /// - Throws: ``PreprocessingError`` for a size without pixels, or one that is not workable: the
  ///   resized image would have no pixels, or billions.
  public func placement(of imageSize: PixelSize) throws(PreprocessingError) -> Placement {
    try check(imageSize, "image")
    try check(inputSize, "input")
    let resized: PixelSize
    switch fit {
    case .crop: resized = resizedSize(of: imageSize)
    case .stretch: resized = inputSize
    case .pad: resized = Self.containedSize(of: imageSize, in: inputSize)
    }
    try check(resized, "resized image")
    return Placement(imageSize: imageSize, resizedSize: resized, inputSize: inputSize)
  }

  private func resizedSize(of image: PixelSize) -> PixelSize {
    switch resize {
    case nil: return image
    case .exact(let size): return size
    case .shortestEdge(let edge):
      // The quotient of floating-point numbers, truncated, is what the Python side computes.
      if image.width <= image.height {
        let height = Double(edge * image.height) / Double(image.width)
        return PixelSize(width: edge, height: Int(height))
      }
      let width = Double(edge * image.width) / Double(image.height)
      return PixelSize(width: Int(width), height: edge)
    }
  }

  private static func containedSize(of image: PixelSize, in frame: PixelSize) -> PixelSize {
    if image.height * frame.width >= image.width * frame.height {
      let width = Double(image.width * frame.height) / Double(image.height)
      return PixelSize(
        width: max(1, Int(width.rounded(.toNearestOrEven))), height: frame.height)
    }
    let height = Double(image.height * frame.width) / Double(image.width)
    return PixelSize(width: frame.width, height: max(1, Int(height.rounded(.toNearestOrEven))))
  }

  private func check(_ size: PixelSize, _ what: String) throws(PreprocessingError) {
    // Products with an edge of another image must stay far from overflowing.
    guard (1...maximumEdge).contains(size.width), (1...maximumEdge).contains(size.height) else {
      throw .unworkableSize(what: what, size)
    }
  }
}

/// The longest edge of an image that this package works on.
let maximumEdge = 1 << 24
