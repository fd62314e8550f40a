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
    /// Decoded whenever its pixels are asked for.
    case image(CGImage)
    /// Decoded before, with the same pixels as Vision wants them.
    case pixels(PixelImage, CGImage)
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
  /// - Parameters:
  ///   - url: the file.
  ///   - maximumEdge: length that no edge is to exceed: larger pictures are reduced while they are
  ///     decoded, which is fast and takes little memory, but has a filter of its own. `nil` keeps all
  ///     pixels, as byte-for-byte preprocessing needs.
  /// - Throws: ``ModelError/undecodable(_:)``.
  public init(contentsOf url: URL, maximumEdge: Int? = nil) throws {
    try self.init(
      CGImageSourceCreateWithURL(url as CFURL, nil), name: url.lastPathComponent,
      maximumEdge: maximumEdge)
  }

  /// Reads a file's content, with its orientation.
  ///
  /// - Parameters:
  ///   - data: the content.
  ///   - maximumEdge: as for a file.
  /// - Throws: ``ModelError/undecodable(_:)``.
  public init(data: Data, maximumEdge: Int? = nil) throws {
    try self.init(
      CGImageSourceCreateWithData(data as CFData, nil), name: "The file", maximumEdge: maximumEdge)
  }

  private init(_ source: CGImageSource?, name: String, maximumEdge: Int?) throws {
    guard let source else { throw ModelError.undecodable(name) }
    let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as NSDictionary?
    let edges = [kCGImagePropertyPixelWidth, kCGImagePropertyPixelHeight].map {
      properties?[$0 as String] as? Int ?? 0
    }
    let found: CGImage?
    if let maximumEdge, edges.contains(where: { $0 > maximumEdge }) {
      let options: [String: Any] = [
        kCGImageSourceCreateThumbnailFromImageAlways as String: true,
        kCGImageSourceThumbnailMaxPixelSize as String: maximumEdge,
        // The orientation is told apart, as for pictures of any size.
        kCGImageSourceCreateThumbnailWithTransform as String: false,
      ]
      found = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary)
    } else {
      found = CGImageSourceCreateImageAtIndex(source, 0, nil)
    }
    guard let found else { throw ModelError.undecodable(name) }
    let tag = properties?[kCGImagePropertyOrientation as String] as? Int
    self.init(found, orientation: tag.flatMap(ImageOrientation.init(rawValue:)) ?? .up)
  }

  private init(_ source: Source, orientation: ImageOrientation) {
    self.source = source
    self.orientation = orientation
  }

  /// The same picture with its pixels decoded, for several answers about it.
  ///
  /// Image I/O decodes when pixels are asked for; of a photo that is answered about more than once,
  /// or shown too, decode it once and off the main actor.
  public func decoded() throws -> Photo {
    guard case .image(let image) = source else { return self }
    let pixels = try Self.draw(image)
    guard let image = pixels.makeImage(isPremultiplied: false) else {
      throw ModelError.noBuffer("a picture of \(pixels.size.description) pixels")
    }
    return Photo(.pixels(pixels, image), orientation: orientation)
  }

  /// The picture for the screen, stored as it is; `nil` for a frame.
  public var image: CGImage? {
    switch source {
    case .image(let image), .pixels(_, let image): image
    case .buffer: nil
    }
  }

  /// Size of the pixels as they are stored.
  public var storedSize: PixelSize {
    switch source {
    case .image(let image): PixelSize(width: image.width, height: image.height)
    case .pixels(let pixels, _): pixels.size
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
    case .pixels(let pixels, _): pixels
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
      try write(FramePreprocessor(preprocessing), into: target)
    }
    return (image, placement)
  }

  /// Resizes and crops the picture into a model's input buffer.
  func write(
    _ preprocessor: FramePreprocessor, into target: MutablePixelBufferView
  ) throws -> Placement {
    switch source {
    case .image(let image):
      try Self.draw(image).withView {
        try preprocessor.run($0, orientation: orientation, into: target)
      }
    case .pixels(let pixels, _):
      try pixels.withView { try preprocessor.run($0, orientation: orientation, into: target) }
    case .buffer(let buffer):
      try withPixels(of: buffer) {
        try preprocessor.run($0, orientation: orientation, into: target)
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
