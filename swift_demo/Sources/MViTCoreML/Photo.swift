#if canImport(CoreML)
import CoreGraphics
import CoreVideo
import Foundation
import ImageIO
import MViTKit

/// A picture with the orientation that turns it upright.
///
/// Unchecked: a `CGImage` never changes, and a pixel buffer given to a photo is only read; whoever
/// hands one over must not write into it any more, as holds for the frames of a capture session.
public struct Photo: @unchecked Sendable {
  enum Source {
    case image(CGImage)
    case buffer(CVPixelBuffer)
  }

  let source: Source
  /// How the stored pixels must be turned.
  public let orientation: ImageOrientation

  /// Takes an image that Core Graphics has decoded.
  public init(_ image: CGImage, orientation: ImageOrientation = .up) {
    source = .image(image)
    self.orientation = orientation
  }

  /// Takes a frame in 32BGRA.
  public init(_ pixelBuffer: CVPixelBuffer, orientation: ImageOrientation = .up) {
    source = .buffer(pixelBuffer)
    self.orientation = orientation
  }

  /// Reads a file of any format that Image I/O knows, with its orientation.
  ///
  /// - Throws: ``ModelError/undecodable(_:)``.
  public init(contentsOf url: URL) throws {
    try self.init(
      CGImageSourceCreateWithURL(url as CFURL, nil), name: url.lastPathComponent)
  }

  /// Decodes a file's content, with its orientation.
  ///
  /// - Throws: ``ModelError/undecodable(_:)``.
  public init(data: Data) throws {
    try self.init(CGImageSourceCreateWithData(data as CFData, nil), name: "The file")
  }

  private init(_ source: CGImageSource?, name: String) throws {
    guard let source, let image = CGImageSourceCreateImageAtIndex(source, 0, nil) else {
      throw ModelError.undecodable(name)
    }
    let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as NSDictionary?
    let tag = properties?[kCGImagePropertyOrientation as String] as? Int
    self.init(image, orientation: tag.flatMap(ImageOrientation.init(rawValue:)) ?? .up)
  }

  /// Size of the pixels as they are stored.
  public var storedSize: PixelSize {
    switch source {
    case .image(let image): PixelSize(width: image.width, height: image.height)
    case .buffer(let buffer): pixelSize(of: buffer)
    }
  }

  /// Size of the picture as people see it.
  public var uprightSize: PixelSize { orientation.uprightSize(of: storedSize) }

  /// Copies the pixels as they are stored, in sRGB and the order blue, green, red.
  ///
  /// Core Graphics converts other colour profiles to sRGB. What is transparent turns black.
  public func pixels() throws -> PixelImage {
    switch source {
    case .image(let image): try Self.draw(image)
    case .buffer(let buffer):
      try withPixels(of: buffer) { view in
        try PixelImage(
          size: view.size, bytesPerRow: view.bytesPerRow, order: view.order,
          bytes: [UInt8](
            UnsafeRawBufferPointer(start: view.base, count: view.bytesPerRow * view.size.height)))
      }
    }
  }

  /// The picture as the exact path hands it to a model.
  public func fitted(
    _ preprocessing: Preprocessing
  ) throws -> (image: PixelImage, placement: Placement) {
    var image = try PixelImage(size: preprocessing.inputSize, order: .bgra)
    let placement = try image.withMutableView { target in
      try write(preprocessing, into: target)
    }
    return (image, placement)
  }

  /// Resizes and crops the picture into a model's input buffer.
  func write(
    _ preprocessing: Preprocessing, into target: MutablePixelBufferView
  ) throws -> Placement {
    let preprocessor = Preprocessor(preprocessing)
    switch source {
    case .image(let image):
      return try Self.draw(image).withView { view in
        try preprocessor.run(view, orientation: orientation, into: target)
      }
    case .buffer(let buffer):
      return try withPixels(of: buffer) { view in
        try preprocessor.run(view, orientation: orientation, into: target)
      }
    }
  }

  private static func draw(_ image: CGImage) throws -> PixelImage {
    var pixels = try PixelImage(
      size: PixelSize(width: image.width, height: image.height), order: .bgra)
    try pixels.withMutableView { view in
      let layout = CGBitmapInfo.byteOrder32Little.rawValue | CGImageAlphaInfo.noneSkipFirst.rawValue
      guard let space = CGColorSpace(name: CGColorSpace.sRGB),
        let context = CGContext(
          data: view.base, width: view.size.width, height: view.size.height, bitsPerComponent: 8,
          bytesPerRow: view.bytesPerRow, space: space, bitmapInfo: layout)
      else { throw ModelError.noBuffer("a picture of \(view.size.description) pixels") }
      // One pixel to one pixel: nothing may be interpolated before the exact resize.
      context.interpolationQuality = .none
      context.draw(
        image, in: CGRect(x: 0, y: 0, width: view.size.width, height: view.size.height))
    }
    return pixels
  }
}

extension ImageOrientation {
  /// The same orientation for Image I/O and Vision.
  public var imageIO: CGImagePropertyOrientation {
    CGImagePropertyOrientation(rawValue: UInt32(rawValue)) ?? .up
  }
}

extension PixelImage {
  /// Makes an image for drawing, such as an overlay; it is not smoothed when enlarged.
  ///
  /// - Parameter isPremultiplied: whether the fourth byte is an alpha that the colours are
  ///   multiplied with; otherwise it is passed over.
  public func makeImage(isPremultiplied: Bool) -> CGImage? {
    let layout: UInt32 =
      switch (order, isPremultiplied) {
      case (.rgba, true): CGImageAlphaInfo.premultipliedLast.rawValue
      case (.rgba, false): CGImageAlphaInfo.noneSkipLast.rawValue
      case (.bgra, true):
        CGImageAlphaInfo.premultipliedFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue
      case (.bgra, false):
        CGImageAlphaInfo.noneSkipFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue
      }
    guard let space = CGColorSpace(name: CGColorSpace.sRGB),
      let provider = CGDataProvider(data: Data(bytes) as CFData)
    else { return nil }
    return CGImage(
      width: size.width, height: size.height, bitsPerComponent: 8, bitsPerPixel: 32,
      bytesPerRow: bytesPerRow, space: space, bitmapInfo: CGBitmapInfo(rawValue: layout),
      provider: provider, decode: nil, shouldInterpolate: false, intent: .defaultIntent)
  }
}
#endif
