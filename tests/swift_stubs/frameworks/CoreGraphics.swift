// Interface of the part of Core Graphics that MViTCoreML uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
import Foundation

// Core Foundation types have no counterpart here; Swift's own stand in for those they bridge to.
public typealias CFString = String
public typealias CFDictionary = [String: Any]
public typealias CFData = Data
public typealias CFURL = URL

public final class CGColorSpace {
  public init?(name: CFString) { fatalError() }
  public class var sRGB: CFString { fatalError() }
}

public enum CGImageAlphaInfo: UInt32, Sendable {
  case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst
  case alphaOnly
}

public struct CGBitmapInfo: OptionSet, Sendable {
  public var rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static var byteOrder32Little: CGBitmapInfo { fatalError() }
}

public enum CGInterpolationQuality: Int32, Sendable {
  case `default`, none, low, medium, high
}

public enum CGColorRenderingIntent: Int32, Sendable {
  case defaultIntent, absoluteColorimetric, relativeColorimetric, perceptual, saturation
}

public enum CGBlendMode: Int32, Sendable {
  case normal, copy
}

public final class CGDataProvider {
  public init?(data: CFData) { fatalError() }
}

public final class CGImage {
  public init?(
    width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int,
    space: CGColorSpace, bitmapInfo: CGBitmapInfo, provider: CGDataProvider,
    decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool, intent: CGColorRenderingIntent
  ) { fatalError() }
  public var width: Int { fatalError() }
  public var height: Int { fatalError() }
}

public final class CGContext {
  public init?(
    data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int,
    bytesPerRow: Int, space: CGColorSpace, bitmapInfo: UInt32
  ) { fatalError() }
  public var interpolationQuality: CGInterpolationQuality {
    get { fatalError() }
    set { fatalError() }
  }
  public func setBlendMode(_ mode: CGBlendMode) { fatalError() }
  public func draw(_ image: CGImage, in rect: CGRect, byTiling: Bool = false) { fatalError() }
}

// SDKs differ.
#if SENDABLE
extension CGImage: @unchecked Sendable {}
#elseif NOT_SENDABLE
@available(*, unavailable) extension CGImage: @unchecked Sendable {}
#endif
